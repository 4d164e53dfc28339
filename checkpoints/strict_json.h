// JSON that comes with a model: no key twice, no deep nesting, one clear error with the file and the place in it.
#pragma once
#include <filesystem>
#include <string_view>

#include <nlohmann/json.hpp>

namespace graft {

// UserError for text that is no JSON, for a key that an object holds twice (its meaning would depend on the reader), and for
// nesting beyond `max_depth`. `what` names the text in messages: "the header", "the index".
nlohmann::json parse_strict_json(std::string_view text, const std::filesystem::path& file, std::string_view what,
                                 int max_depth);

// As above, with every object's keys in the order of the text: for files of a few hundred keys.
nlohmann::ordered_json parse_strict_ordered_json(std::string_view text, const std::filesystem::path& file,
                                                 std::string_view what, int max_depth);

// The whole JSON file, which may have at most `max_bytes`.
nlohmann::ordered_json read_strict_json(const std::filesystem::path& file, std::string_view what, int max_depth = 32,
                                        size_t max_bytes = size_t{64} << 20);

}  // namespace graft
