#include "data/rows/prompt_text.h"

#include <fmt/ranges.h>

#include "data/rows/row_problems.h"

namespace graft {

PromptText::PromptText(std::string_view text, std::string_view key) {
  std::string literal;
  const auto finish_literal = [&] {
    if (!literal.empty()) pieces_.push_back({false, std::move(literal)});
    literal.clear();
  };
  for (size_t at = 0; at < text.size(); ++at) {
    const char byte = text[at];
    if (byte != '{' && byte != '}') {
      literal += byte;
    } else if (at + 1 < text.size() && text[at + 1] == byte) {
      literal += byte;
      ++at;
    } else {
      const size_t end = byte == '{' ? text.find_first_of("{}", at + 1) : std::string_view::npos;
      if (end == std::string_view::npos || text[end] != '}' || end == at + 1) {
        fail("data", "expected {{column}} in `{}`, got a single '{}' at character {} — write {} for a brace", key, byte, at + 1,
             byte == '{' ? "{{" : "}}");
      }
      finish_literal();
      pieces_.push_back({true, std::string(text.substr(at + 1, end - at - 1))});
      at = end;
    }
  }
  finish_literal();
}

std::string PromptText::fill(const nlohmann::ordered_json& record) const {
  std::string filled;
  for (const Piece& piece : pieces_) filled += piece.is_column ? column_text(record, piece.text) : piece.text;
  return filled;
}

std::string column_text(const nlohmann::ordered_json& record, const std::string& column) {
  const auto found = record.find(column);
  if (found == record.end()) {
    std::vector<std::string> names;
    for (const auto& [name, value] : record.items()) names.push_back("\"" + name + "\"");
    constexpr size_t kShown = 20;
    if (names.size() > kShown) {
      names.resize(kShown);
      names.push_back("...");
    }
    fail_row("no column \"{}\"; the row has {}", column, names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")));
  }
  if (found->is_string()) return found->get<std::string>();
  if (found->is_number() || found->is_boolean()) return found->dump();
  fail_row("column \"{}\" is {}, expected text", column,
           found->is_null()    ? "null"
           : found->is_array() ? "a list"
                               : "an object");
}

}  // namespace graft
