// The prompt written in a recipe: text in which {column} is replaced by that column of the row; {{ and }} are braces.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace graft {

class PromptText {
 public:
  // key: the recipe's key, shown in errors. Throws UserError on a brace that is neither a column nor doubled.
  PromptText(std::string_view text, std::string_view key);
  // Throws RowProblem when a column is missing, null, a list or an object.
  std::string fill(const nlohmann::ordered_json& record) const;

 private:
  struct Piece {
    bool is_column;
    std::string text;
  };
  std::vector<Piece> pieces_;
};

// The value of a column as text: a string as it is, a number or truth value as JSON writes it. Throws RowProblem otherwise.
std::string column_text(const nlohmann::ordered_json& record, const std::string& column);

}  // namespace graft
