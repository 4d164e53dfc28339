// Template source to tokens, as jinja2 3.1 does with trim_blocks and lstrip_blocks: one final newline is dropped, CR LF becomes LF,
// a newline after a block or comment tag is eaten, so are blanks before one at the start of a line, and `-` eats all white space.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "data/templates/jinja/value.h"

namespace graft::jinja {

struct SyntaxError {
  std::string message;
  int line;
};

enum class TokenKind { kData, kVariableBegin, kVariableEnd, kBlockBegin, kBlockEnd, kName, kString, kInteger, kFloat, kOperator, kEnd };

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 1;
  std::string text;      // data, name, unescaped string, or the operator itself
  Integer integer = 0;
  double floating = 0;
  bool is_name(std::string_view name) const { return kind == TokenKind::kName && text == name; }
  bool is_operator(std::string_view symbol) const { return kind == TokenKind::kOperator && text == symbol; }
};

std::string describe(const Token& token);
std::vector<Token> tokenize(std::string_view source);  // ends with kEnd; throws SyntaxError

}  // namespace graft::jinja
