#include "checkpoints/strict_json.h"

#include <string>
#include <unordered_set>
#include <vector>

#include "checkpoints/mapped_file.h"
#include "checkpoints/quote.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

template <typename Json>
Json parse(std::string_view text, const std::filesystem::path& file, std::string_view what, int max_depth) {
  std::vector<std::unordered_set<std::string>> keys_of_open_objects;
  const typename Json::parser_callback_t check = [&](int depth, typename Json::parse_event_t event, Json& parsed) {
    using Event = typename Json::parse_event_t;
    if (depth > max_depth)
      fail("checkpoints", "expected at most {} levels of nesting in {}, got more ({}) — the file is damaged; copy it again",
           max_depth, what, file.string());
    if (event == Event::object_start) keys_of_open_objects.emplace_back();
    if (event == Event::object_end) keys_of_open_objects.pop_back();
    if (event == Event::key && !keys_of_open_objects.back().insert(parsed.template get<std::string>()).second)
      fail("checkpoints", "expected every key once in {}, got {} twice ({}) — the file is damaged; write it again", what,
           quote(parsed.template get<std::string>()), file.string());
    return true;
  };
  try {
    return Json::parse(text, check);
  } catch (const nlohmann::json::exception& error) {
    const std::string_view message = error.what();  // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    const size_t prefix = message.find("] ");
    fail("checkpoints", "expected {} as JSON, got {} ({}) — the file is damaged; copy it again", what,
         message.substr(prefix == std::string_view::npos ? 0 : prefix + 2).substr(0, 300), file.string());
  }
}

}  // namespace

nlohmann::json parse_strict_json(std::string_view text, const std::filesystem::path& file, std::string_view what,
                                 int max_depth) {
  return parse<nlohmann::json>(text, file, what, max_depth);
}

nlohmann::ordered_json parse_strict_ordered_json(std::string_view text, const std::filesystem::path& file,
                                                 std::string_view what, int max_depth) {
  return parse<nlohmann::ordered_json>(text, file, what, max_depth);
}

nlohmann::ordered_json read_strict_json(const std::filesystem::path& file, std::string_view what, int max_depth,
                                        size_t max_bytes) {
  const MappedFile mapped(file);
  const auto bytes = mapped.bytes();
  if (bytes.size() > max_bytes)
    fail("checkpoints", "expected at most {} bytes of {}, got {} ({}) — the file is damaged; copy it again", max_bytes, what,
         bytes.size(), file.string());
  return parse_strict_ordered_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, file, what, max_depth);
}

}  // namespace graft
