#include "trainer/recipe/reader.h"

#include <algorithm>
#include <cstdlib>

#include <fmt/ranges.h>

#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr size_t kMaxProblems = 20;
constexpr double kNoBound = 1e9;   // a larger bound only keeps arithmetic safe; nobody needs to read it

}  // namespace

bool Range::holds(double value) const {
  return (above_low ? value > low : value >= low) && (below_high ? value < high : value <= high);
}

std::string Range::text() const {
  const bool has_low = low > -std::numeric_limits<double>::infinity(), has_high = high < kNoBound;
  if (has_low && has_high) return fmt::format("{} {} to {}{}", above_low ? "above" : "from", low, below_high ? "below " : "", high);
  if (has_low) return fmt::format("{} {}", above_low ? "above" : "of at least", low);
  if (has_high) return fmt::format("{} {}", below_high ? "below" : "of at most", high);
  return {};
}

Reader::Reader(std::string file, std::filesystem::path folder, std::vector<std::string> known_keys)
    : file_(std::move(file)), folder_(std::move(folder)), known_keys_(std::move(known_keys)) {}

Reader::Inside::Inside(Reader& reader, std::string_view key) : reader_(reader), length_(reader.path_.size()) {
  if (!reader_.path_.empty()) reader_.path_ += '.';
  reader_.path_ += key;
}
Reader::Inside::~Inside() { reader_.path_.resize(length_); }

std::optional<int64_t> Reader::integer(const YamlValue& value, const Range& range, const std::string& also) {
  const auto read = value.as_integer();
  if (read && range.holds(static_cast<double>(*read))) return read;
  expected(value, also + "an integer " + range.text(), value.quoted ? "remove the quotes" : "");
  return std::nullopt;
}

std::optional<double> Reader::number(const YamlValue& value, const Range& range, const std::string& also) {
  const auto read = value.as_number();
  if (read && range.holds(*read)) return read;
  expected(value, also + "a number " + range.text(), value.quoted ? "remove the quotes" : "");
  return std::nullopt;
}

std::optional<bool> Reader::boolean(const YamlValue& value) {
  const auto read = value.as_boolean();
  if (!read) expected(value, "true or false");
  return read;
}

std::optional<std::string> Reader::text(const YamlValue& value) {
  if (value.kind == YamlValue::Kind::kScalar && !value.text.empty()) return value.text;
  expected(value, "a text");
  return std::nullopt;
}

std::optional<std::string> Reader::choice(const YamlValue& value, const std::vector<std::string>& allowed) {
  if (value.kind == YamlValue::Kind::kScalar && std::find(allowed.begin(), allowed.end(), value.text) != allowed.end()) return value.text;
  std::string advice;
  for (const std::string& candidate : allowed) {
    if (value.kind == YamlValue::Kind::kScalar && edit_distance(value.text, candidate) <= std::max<size_t>(1, candidate.size() / 3)) {
      advice = fmt::format("did you mean '{}'?", candidate);
    }
  }
  expected(value, fmt::format("{}{}", allowed.size() > 1 ? "one of " : "", fmt::join(allowed, ", ")), advice);
  return std::nullopt;
}

std::optional<std::string> Reader::path(const YamlValue& value, bool of_working_directory) {
  const auto given = text(value);
  if (!given) return std::nullopt;
  if (given->find('\0') != std::string::npos) {
    expected(value, "a path");
    return std::nullopt;
  }
  const char* home = std::getenv("HOME");
  if (home != nullptr && (*given == "~" || given->starts_with("~/"))) return shown_path(std::filesystem::path(home) / given->substr(std::min<size_t>(2, given->size())));
  const bool here = of_working_directory || value.place.override_text != nullptr;
  return shown_path(here ? std::filesystem::path(*given) : folder_ / *given);
}

bool Reader::expect_map(const YamlValue& value) {
  if (value.kind == YamlValue::Kind::kMap) return true;
  expected(value, "a mapping with keys");
  return false;
}

bool Reader::expect_list(const YamlValue& value) {
  if (value.kind == YamlValue::Kind::kList) return true;
  expected(value, "a list", value.kind == YamlValue::Kind::kMap ? "write it as a list: begin the entry with '- '" : "");
  return false;
}

void Reader::problem(const YamlPlace& place, const std::string& text) {
  problems_.push_back(place.override_text ? fmt::format("--set {}: {}", *place.override_text, text)
                                          : fmt::format("{}:{}:{}: {}", file_, place.line, place.column, text));
}

void Reader::expected(const YamlValue& value, const std::string& what, const std::string& advice) {
  std::string shown = what;
  while (shown.ends_with(' ')) shown.pop_back();
  problem(value.place, fmt::format("expected {} to be {}, got {}{}{}", path_.empty() ? "a recipe" : path_, shown, describe(value),
                                   advice.empty() ? "" : " — ", advice));
}

void Reader::unknown_key(const YamlValue::Entry& entry, const std::vector<std::string>& keys_here) {
  const std::string prefix = path_.empty() ? "" : path_ + ".";
  std::string nearest;
  size_t nearest_distance = std::max<size_t>(2, entry.key.size() / 3) + 1;
  for (const std::string& key : keys_here) {
    if (const size_t distance = edit_distance(entry.key, key); distance < nearest_distance) nearest = prefix + key, nearest_distance = distance;
  }
  // A known key in the wrong place (`learning_rate` at the top) is nearer than a similar name here, unless that is one slip away.
  for (const std::string& known : known_keys_) {
    if (nearest_distance > 1 && known.substr(known.rfind('.') + 1) == entry.key) nearest = known, nearest_distance = 1;
  }
  const std::string advice = nearest.empty() ? fmt::format("known here: {}", fmt::join(keys_here, ", "))
                                             : fmt::format("did you mean '{}'?", nearest);
  problem(entry.key_place, fmt::format("expected a known key, got '{}{}' — {}", prefix, entry.key, advice));
}

void Reader::missing_key(const YamlPlace& place, const std::string& key, const std::string& type) {
  const std::string prefix = path_.empty() ? "" : path_ + ".";
  problem(place, fmt::format("expected the key '{0}{1}' ({2}), got none — add it, or give --set {0}{1}=...", prefix, key, type));
}

void Reader::finish() const {
  if (problems_.empty()) return;
  if (problems_.size() == 1) fail("recipe", "{}", problems_[0]);
  const size_t shown = std::min(problems_.size(), kMaxProblems);
  std::string text = fmt::format("{} problems:", problems_.size());
  for (size_t i = 0; i < shown; ++i) text += "\n  " + problems_[i];
  if (shown < problems_.size()) text += fmt::format("\n  and {} more", problems_.size() - shown);
  throw UserError("recipe", text);
}

size_t edit_distance(std::string_view a, std::string_view b) {
  a = a.substr(0, 64), b = b.substr(0, 64);   // keys are short; a hostile one must not cost more
  std::vector<std::vector<size_t>> cost(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = i + j;
        continue;
      }
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
    }
  }
  return cost[a.size()][b.size()];
}

std::string shown_path(const std::filesystem::path& path) {
  const std::filesystem::path here = std::filesystem::current_path();
  std::filesystem::path whole = (here / path).lexically_normal();
  if (!whole.has_filename() && whole.has_relative_path()) whole = whole.parent_path();   // no slash at the end
  const std::filesystem::path below = whole.lexically_relative(here);
  return below.empty() || below.begin()->string() == ".." ? whole.string() : below.string();
}

}  // namespace graft
