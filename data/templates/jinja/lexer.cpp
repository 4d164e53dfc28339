#include "data/templates/jinja/lexer.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "data/templates/jinja/python_text.h"
#include "data/templates/jinja/string_escapes.h"

namespace graft::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Newlines become \n, and one final newline is dropped.
std::string normalise_newlines(std::string_view source) {
  std::string result;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      result += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      result += source[i];
    }
  }
  if (!result.empty() && result.back() == '\n') result.pop_back();
  return result;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  std::vector<Token> run() {
    while (position_ < source_.size()) lex_root();
    add(TokenKind::kEnd);
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(position_); }
  bool at(std::string_view text) const { return rest().substr(0, text.size()) == text; }

  void advance_to(size_t position) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(position_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(position), '\n'));
    position_ = position;
  }

  Token& add(TokenKind kind, std::string text = {}) {
    tokens_.push_back({kind, line_, std::move(text)});
    return tokens_.back();
  }

  void skip_space() {
    size_t next = position_;
    while (next < source_.size()) {
      size_t after = next;
      if (!is_python_space(decode_code_point(source_, after))) break;
      next = after;
    }
    advance_to(next);
  }

  void add_data(std::string_view data) {
    if (!data.empty()) add(TokenKind::kData, std::string(data));
  }

  // The text before a tag, cut as its sign asks: '-' all white space; none: blanks of its line, except before {{.
  std::string_view cut_before(std::string_view text, char sign, bool variable) const {
    if (sign == '-') return strip(text, nullptr, false, true);
    if (sign == '+' || variable) return text;
    const size_t newline = text.rfind('\n');
    const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
    if (line_begin == 0 && !line_starting_) return text;
    return strip(text.substr(line_begin), nullptr, true, false).empty() ? text.substr(0, line_begin) : text;
  }

  size_t find_tag(size_t from) const {
    for (size_t i = from; i + 1 < source_.size(); ++i) {
      if (source_[i] == '{' && (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#')) return i;
    }
    return std::string_view::npos;
  }

  char sign_at(size_t position) const {
    return position < source_.size() && (source_[position] == '-' || source_[position] == '+') ? source_[position] : '\0';
  }

  void lex_root() {
    const size_t tag = find_tag(position_);
    if (tag == std::string_view::npos) {
      add_data(rest());
      advance_to(source_.size());
      return;
    }
    const char kind = source_[tag + 1];
    const char sign = sign_at(tag + 2);
    add_data(cut_before(std::string_view(source_).substr(position_, tag - position_), sign, kind == '{'));
    advance_to(tag);
    const size_t inside = tag + 2 + (sign ? 1 : 0);
    if (kind == '#') return lex_comment(inside);
    if (kind == '%' && lex_raw(tag)) return;
    add(kind == '{' ? TokenKind::kVariableBegin : TokenKind::kBlockBegin);
    advance_to(inside);
    kind == '{' ? lex_code("}}", TokenKind::kVariableEnd) : lex_code("%}", TokenKind::kBlockEnd);
  }

  // After a tag's end: `-` eats white space, a block or comment end eats one newline.
  void leave_tag(char sign, bool trims_newline) {
    const size_t begin = position_;
    if (sign == '-') {
      skip_space();
    } else if (sign != '+' && trims_newline && at("\n")) {
      advance_to(position_ + 1);
    }
    line_starting_ = position_ > begin ? source_[position_ - 1] == '\n' : false;
  }

  void lex_comment(size_t inside) {
    const int begin_line = line_;
    for (size_t i = inside; i + 1 < source_.size(); ++i) {
      if (source_[i] != '#' || source_[i + 1] != '}') continue;
      const char sign = i > inside ? sign_at(i - 1) : '\0';
      advance_to(i + 2);
      leave_tag(sign, true);
      return;
    }
    throw SyntaxError{"Missing end of comment tag", begin_line};
  }

  size_t skip_space_from(size_t position) const {
    while (position < source_.size()) {
      size_t next = position;
      if (!is_python_space(decode_code_point(source_, next))) break;
      position = next;
    }
    return position;
  }

  // {% raw %}: its text up to {% endraw %} is data. False when this block is something else.
  bool lex_raw(size_t tag) {
    size_t next = skip_space_from(tag + 2 + (sign_at(tag + 2) ? 1 : 0));
    if (source_.compare(next, 3, "raw") != 0) return false;
    next = skip_space_from(next + 3);
    const bool trims = source_.compare(next, 3, "-%}") == 0;
    if (!trims && source_.compare(next, 2, "%}") != 0) return false;
    advance_to(trims ? skip_space_from(next + 3) : next + 2);
    line_starting_ = source_[position_ - 1] == '\n';
    for (size_t i = position_; i + 1 < source_.size(); ++i) {
      if (source_[i] != '{' || source_[i + 1] != '%') continue;
      const char begin_sign = sign_at(i + 2);
      size_t end = skip_space_from(i + 2 + (begin_sign ? 1 : 0));
      if (source_.compare(end, 6, "endraw") != 0) continue;
      end = skip_space_from(end + 6);
      const char end_sign = sign_at(end);
      if (end_sign) ++end;
      if (source_.compare(end, 2, "%}") != 0) continue;
      add_data(cut_before(std::string_view(source_).substr(position_, i - position_), begin_sign, false));
      advance_to(end + 2);
      leave_tag(end_sign, true);
      return true;
    }
    throw SyntaxError{"Missing end of raw directive", line_};
  }

  void lex_code(std::string_view end, TokenKind end_kind) {
    brackets_.clear();
    while (true) {
      skip_space();
      if (position_ >= source_.size()) return;  // the parser reports what is missing
      if (brackets_.empty() && lex_end(end, end_kind)) return;
      lex_token();
    }
  }

  bool lex_end(std::string_view end, TokenKind kind) {
    char sign = '\0';
    if ((at("-") || (at("+") && kind == TokenKind::kBlockEnd)) && rest().substr(1, 2) == end) sign = source_[position_];
    if (!sign && !at(end)) return false;
    add(kind);
    advance_to(position_ + (sign ? 1 : 0) + 2);
    leave_tag(sign, kind == TokenKind::kBlockEnd);
    return true;
  }

  void lex_token() {
    const char c = source_[position_];
    if (is_digit(c)) return lex_number();
    if (c == '\'' || c == '"') return lex_string(c);
    if (c == '_' || std::isalpha(static_cast<unsigned char>(c)) || static_cast<unsigned char>(c) >= 0x80) return lex_name();
    lex_operator();
  }

  void lex_name() {
    size_t end = position_;
    while (end < source_.size()) {
      size_t next = end;
      const char32_t c = decode_code_point(source_, next);
      const bool word = c < 0x80 ? c == '_' || std::isalnum(static_cast<int>(c)) : is_alphanumeric(c);
      if (!word) break;
      end = next;
    }
    if (end == position_) unexpected();
    add(TokenKind::kName, source_.substr(position_, end - position_));
    advance_to(end);
  }

  size_t skip_digits(size_t from) const {  // digits with single underscores between them
    size_t end = from;
    while (end < source_.size() && (is_digit(source_[end]) || (source_[end] == '_' && end > from && is_digit(source_[end - 1]) &&
                                                               end + 1 < source_.size() && is_digit(source_[end + 1])))) {
      ++end;
    }
    return end;
  }

  void lex_number() {
    const size_t whole = skip_digits(position_);
    size_t end = whole;
    if (end + 1 < source_.size() && source_[end] == '.' && is_digit(source_[end + 1])) end = skip_digits(end + 1);
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const size_t digits = end + 1 + (end + 1 < source_.size() && (source_[end + 1] == '+' || source_[end + 1] == '-'));
      if (digits < source_.size() && is_digit(source_[digits])) end = skip_digits(digits);
    }
    if (end > whole && !(position_ > 0 && source_[position_ - 1] == '.')) {
      std::string digits = source_.substr(position_, end - position_);
      std::erase(digits, '_');
      add(TokenKind::kFloat, digits).floating = std::strtod(digits.c_str(), nullptr);
      return advance_to(end);
    }
    lex_integer(whole);
  }

  void lex_integer(size_t decimal_end) {
    int base = 10;
    size_t begin = position_, end = decimal_end;
    if (source_[position_] == '0' && position_ + 1 < source_.size()) {
      const char prefix = static_cast<char>(std::tolower(static_cast<unsigned char>(source_[position_ + 1])));
      base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 10;
    }
    const auto value_of = [&](char c) {
      const int digit = is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
      return digit < base ? digit : -1;
    };
    if (base != 10) {
      begin = end = position_ + 2;
      while (end < source_.size() && (value_of(source_[end]) >= 0 || source_[end] == '_')) ++end;
      if (end == begin) {  // "0x" and no digits: the number 0 and a name
        base = 10;
        begin = position_;
        end = position_ + 1;
      }
    } else if (source_[position_] == '0') {  // no leading zeros: 012 is 0 and 12
      end = position_;
      while (end < decimal_end && (source_[end] == '0' || source_[end] == '_')) ++end;
    }
    Integer value = 0;
    for (size_t i = begin; i < end; ++i) {
      if (source_[i] == '_') continue;
      if (__builtin_mul_overflow(value, Integer{base}, &value) || __builtin_add_overflow(value, Integer{value_of(source_[i])}, &value)) {
        throw SyntaxError{"integers beyond 127 bits are not supported", line_};
      }
    }
    add(TokenKind::kInteger, source_.substr(position_, end - position_)).integer = value;
    advance_to(end);
  }

  void lex_string(char quote) {
    size_t end = position_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) unexpected();
    std::string text;
    if (const char* problem = unescape_string(std::string_view(source_).substr(position_ + 1, end - position_ - 1), text)) {
      throw SyntaxError{problem, line_};
    }
    add(TokenKind::kString, std::move(text));
    advance_to(end + 1);
  }

  void lex_operator() {
    static constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                                      "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const std::string_view symbol : kOperators) {
      if (!at(symbol)) continue;
      check_balance(symbol[0]);
      add(TokenKind::kOperator, std::string(symbol));
      return advance_to(position_ + symbol.size());
    }
    unexpected();
  }

  void check_balance(char c) {
    if (c == '{' || c == '(' || c == '[') brackets_ += c == '{' ? '}' : c == '(' ? ')' : ']';
    if (c != '}' && c != ')' && c != ']') return;
    if (brackets_.empty()) throw SyntaxError{fmt::format("unexpected '{}'", c), line_};
    if (brackets_.back() != c) throw SyntaxError{fmt::format("unexpected '{}', expected '{}'", c, brackets_.back()), line_};
    brackets_.pop_back();
  }

  [[noreturn]] void unexpected() {
    size_t next = position_;
    decode_code_point(source_, next);
    throw SyntaxError{fmt::format("unexpected char '{}'", source_.substr(position_, next - position_)), line_};
  }

  const std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::string brackets_;  // the closing brackets that are awaited
  std::vector<Token> tokens_;
};

}  // namespace

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData: return "template text";
    case TokenKind::kVariableBegin: return "{{";
    case TokenKind::kVariableEnd: return "}}";
    case TokenKind::kBlockBegin: return "{%";
    case TokenKind::kBlockEnd: return "%}";
    case TokenKind::kString: return "a string";
    case TokenKind::kEnd: return "end of template";
    default: return token.text;
  }
}

std::vector<Token> tokenize(std::string_view source) { return Lexer(normalise_newlines(source)).run(); }

}  // namespace graft::jinja
