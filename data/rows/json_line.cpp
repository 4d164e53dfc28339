#include "data/rows/json_line.h"

#include <algorithm>
#include <vector>

#include "data/rows/utf8_text.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxDepth = 128;
constexpr size_t kMaxKeys = 4096;  // nlohmann's ordered object looks keys up one by one

// nlohmann's message without its preamble and without what it last read: that is the user's text.
std::string reason_of(const std::string& what) {
  std::string reason = what;
  if (const size_t colon = reason.find(": "); colon != std::string::npos) reason.erase(0, colon + 2);
  if (const size_t dash = reason.find(" - "); reason.starts_with("syntax error") && dash != std::string::npos)
    reason.erase(0, dash + 3);
  const std::string_view read = "; last read: '";
  if (const size_t begin = reason.find(read); begin != std::string::npos) {
    size_t end = reason.rfind("'; expected ");
    if (end == std::string::npos || end < begin) end = reason.rfind('\'');
    reason.erase(begin, end + 1 - begin);
  }
  return reason;
}

class JsonBuilder : public nlohmann::json_sax<Json> {
 public:
  explicit JsonBuilder(std::string_view line) : line_(line) {}
  Json take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t& text) override {
    if (text.find_first_of(".eE") == string_t::npos)
      fail_row("an integer beyond 64 bits, which would be rounded: write it as a string");
    return put(value);
  }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& key) override {
    const auto& members = open_.back()->get_ref<const Json::object_t&>();
    if (members.size() >= kMaxKeys) fail_row("an object with more than {} keys", kMaxKeys);
    if (std::any_of(members.begin(), members.end(), [&](const auto& member) { return member.first == key; })) {
      fail_row("the key \"{}\" stands twice in one object", key);
    }
    key_ = std::move(key);
    return true;
  }
  // position: bytes read. A token in the wrong place is shown where it begins, a broken one where it breaks.
  bool parse_error(size_t position, const std::string& last_token, const nlohmann::detail::exception& error) override {
    const std::string reason = reason_of(error.what());
    const size_t back = reason.starts_with("unexpected") && !reason.starts_with("unexpected end") ? last_token.size() : 1;
    const size_t before = std::min(position > back ? position - back : 0, line_.size());
    throw JsonProblem(count_code_points(line_.substr(0, before)) + 1, "not JSON: " + reason);
  }

 private:
  // Only the innermost open container grows, so pointers to the outer ones stay valid.
  Json* place(Json value) {
    if (open_.empty()) return &(root_ = std::move(value));
    if (open_.back()->is_array()) return &open_.back()->get_ref<Json::array_t&>().emplace_back(std::move(value));
    // vector::emplace_back, because ordered_map's own insertions search for the key again.
    std::vector<std::pair<const std::string, Json>>& members = open_.back()->get_ref<Json::object_t&>();
    return &members.emplace_back(std::move(key_), std::move(value)).second;
  }
  bool put(Json value) { return place(std::move(value)), true; }
  bool open(Json value) {
    if (open_.size() >= kMaxDepth) fail_row("nested deeper than {}", kMaxDepth);
    open_.push_back(place(std::move(value)));
    return true;
  }
  bool close() { return open_.pop_back(), true; }

  std::string_view line_;
  Json root_;
  std::vector<Json*> open_;
  std::string key_;
};

}  // namespace

nlohmann::ordered_json parse_json_line(std::string_view line) {
  JsonBuilder builder(line);
  Json::sax_parse(line.begin(), line.end(), &builder);
  return builder.take();
}

}  // namespace graft
