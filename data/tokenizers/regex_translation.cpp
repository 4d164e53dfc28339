// Oniguruma -> PCRE2, see regex_splitter.h. Recursive descent over alternatives, pieces and classes.
#include <algorithm>
#include <cctype>

#include "data/tokenizers/regex_splitter.h"
#include "data/tokenizers/unicode_property.h"
#include "data/tokenizers/utf8.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  std::string whole() {
    std::string out = alternatives(0);
    if (!at_end()) refuse("a ')' that closes nothing");
    return out;
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    fail("tokenizers", "expected a split pattern that means the same to Oniguruma and to PCRE2, got {} at byte {} of '{}' — graft would split differently from the reference, so it refuses; report the pattern",
         what, position_, pattern_);
  }
  bool at_end() const { return position_ >= pattern_.size(); }
  bool looking_at(std::string_view text) const { return pattern_.substr(position_, text.size()) == text; }
  bool take(std::string_view text) {
    if (!looking_at(text)) return false;
    position_ += text.size();
    return true;
  }
  uint32_t take_code() {
    if (at_end()) refuse("an unfinished construct");
    const Utf8Char next = decode_utf8(pattern_, position_);
    if (next.code == kInvalidUtf8) refuse("a byte that is no UTF-8");
    position_ += next.length;
    return next.code;
  }

  static std::string literal(uint32_t code) {
    if (code < 0x80 && std::isalnum(static_cast<int>(code))) return std::string(1, static_cast<char>(code));
    return fmt::format("\\x{{{:X}}}", code);
  }

  std::string alternatives(int depth) {
    if (depth > 40) refuse("groups nested deeper than 40");
    std::string out = sequence(depth);
    while (take("|")) out += "|" + sequence(depth);
    return out;
  }

  std::string sequence(int depth) {
    std::string out;
    previous_folded_ = 0;
    while (!at_end() && !looking_at("|") && !looking_at(")")) {
      bool repeatable = true;
      const std::string one = piece(depth, repeatable);
      out += one + quantifier(repeatable);
    }
    return out;
  }

  std::string piece(int depth, bool& repeatable) {
    if (!looking_at("\\") && !std::isalpha(static_cast<unsigned char>(pattern_[position_]))) previous_folded_ = 0;
    if (take("(")) return group(depth, repeatable);
    if (take("[")) return char_class();
    if (take(".")) return ".";
    if (looking_at("^") || looking_at("$")) {
      repeatable = false;
      return std::string(1, pattern_[position_++]);
    }
    if (take("\\")) return escape(repeatable);
    if (looking_at("*") || looking_at("+") || looking_at("?") || looking_at("{")) refuse("a quantifier with nothing to repeat");
    const uint32_t code = take_code();
    if (folding_) check_folding(code);
    return literal(code);
  }

  // Case-insensitive text: ASCII letters fold alike in both engines (s with U+017F, k with U+212A), but Oniguruma also folds
  // pairs: ss with U+00DF, ff fi fl st with ligatures.
  void check_folding(uint32_t code) {
    if (code >= 0x80) refuse("a case-insensitive character outside ASCII");
    const char low = static_cast<char>(std::tolower(static_cast<int>(code)));
    for (const std::string_view pair : {"ss", "ff", "fi", "fl", "st"}) {
      if (previous_folded_ == pair[0] && low == pair[1]) refuse("a case-insensitive ss, ff, fi, fl or st");
    }
    previous_folded_ = low;
  }

  std::string group(int depth, bool& repeatable) {
    std::string open = "(?:";
    const bool outer_folding = folding_;
    previous_folded_ = 0;
    if (take("?:")) {
    } else if (take("?i:")) {
      open = "(?i:";
      folding_ = true;
    } else if (take("?=")) {
      open = "(?=";
    } else if (take("?!")) {
      open = "(?!";
    } else if (take("?<=")) {
      open = "(?<=";
    } else if (take("?<!")) {
      open = "(?<!";
    } else if (take("?>")) {
      open = "(?>";
    } else if (looking_at("?") || looking_at("*")) {
      refuse("a group other than ( (?: (?i: (?= (?! (?<= (?<! (?>");
    }
    repeatable = open == "(?:" || open == "(?i:" || open == "(?>";
    const std::string inside = alternatives(depth + 1);
    if (!take(")")) refuse("a group that is not closed");
    folding_ = outer_folding;
    previous_folded_ = 0;
    return open + inside + ")";
  }

  std::string quantifier(bool repeatable) {
    std::string out;
    bool interval = false, exact = false;
    if (looking_at("*") || looking_at("+") || looking_at("?")) {
      out = pattern_[position_++];
    } else if (take("{")) {
      const auto number = [&] {
        std::string digits;
        while (!at_end() && std::isdigit(static_cast<unsigned char>(pattern_[position_]))) digits += pattern_[position_++];
        return digits;
      };
      const std::string low = number();
      const bool comma = take(",");
      const std::string high = comma ? number() : low;
      if (!take("}") || (low.empty() && high.empty()) || low.size() > 3 || high.size() > 3) refuse("a '{' that is no interval below 1000");
      interval = true;
      exact = !comma;
      out = "{" + (low.empty() ? "0" : low) + (comma ? "," + high : "") + "}";
    } else {
      return out;
    }
    previous_folded_ = 0;
    if (!repeatable) refuse("a quantifier after an assertion");
    if (looking_at("+")) {
      if (interval) refuse("'+' after an interval (possessive in PCRE2, a repetition in Oniguruma)");
      out += pattern_[position_++];
    } else if (looking_at("?")) {
      if (exact) refuse("'?' after {n}");
      out += pattern_[position_++];
    }
    if (looking_at("*") || looking_at("+") || looking_at("?") || looking_at("{")) refuse("a quantifier of a quantifier");
    return out;
  }

  // \p{...} after the p; returns what goes into a class.
  std::string property() {
    const size_t close = pattern_.find('}', position_);
    if (!take("{") || close == std::string_view::npos) refuse("\\p without {...}");
    const std::string_view name = pattern_.substr(position_, close - position_);
    position_ = close + 1;
    return property_for_class(name);
  }

  // The character that an escape stands for; refuses what stands for a class or means different things.
  uint32_t escaped_character() {
    const uint32_t code = take_code();
    switch (code) {
      case 'r': return '\r';
      case 'n': return '\n';
      case 't': return '\t';
      case 'f': return '\f';
      case 'u': return hexadecimal(4);
      case 'x': {
        if (!take("{")) refuse("\\x without {...}");
        const size_t close = pattern_.find('}', position_);
        if (close == std::string_view::npos || close - position_ > 6) refuse("a broken \\x{...}");
        const uint32_t value = hexadecimal(close - position_);
        ++position_;
        return value;
      }
      default: break;
    }
    if (code >= 0x80 || std::isalnum(static_cast<int>(code))) refuse(fmt::format("the escape '\\{}'", code < 0x80 ? std::string(1, static_cast<char>(code)) : "?"));
    return code;
  }
  uint32_t hexadecimal(size_t digits) {
    uint32_t value = 0;
    for (size_t i = 0; i < digits; ++i) {
      const uint32_t digit = take_code();
      if (digit >= 0x80 || !std::isxdigit(static_cast<int>(digit))) refuse("a broken hexadecimal escape");
      value = value * 16 + static_cast<uint32_t>(std::isdigit(static_cast<int>(digit)) ? digit - '0' : std::tolower(static_cast<int>(digit)) - 'a' + 10);
    }
    if (digits == 0 || value >= 0x110000 || (value >= 0xD800 && value <= 0xDFFF)) refuse("an escape that is no character");
    return value;
  }

  std::string escape(bool& repeatable) {
    if (folding_ && (looking_at("p") || looking_at("P"))) refuse("a property inside (?i:");
    if (take("p")) return "[" + property() + "]";
    if (take("P")) return "[^" + property() + "]";
    if (take("s")) return "[" + white_space_for_class(false) + "]";
    if (take("S")) return "[^" + white_space_for_class(false) + "]";
    if (take("d")) return "[" + property_for_class("Nd") + "]";
    if (take("D")) return "[^" + property_for_class("Nd") + "]";
    if (looking_at("A") || looking_at("z")) {
      repeatable = false;
      return std::string("\\") + pattern_[position_++];
    }
    const uint32_t code = escaped_character();
    if (folding_) check_folding(code);
    return literal(code);
  }

  // After "&&" in a class: the class [members]. A look-ahead says what both have.
  std::string intersection(const std::string& members) {
    if (members.starts_with("[^") || folding_) refuse("'&&' in a negated class or inside (?i:");
    if (!take("[")) refuse("'&&' (an intersection) without a class behind it");
    const std::string other = char_class();
    if (!other.starts_with("[") || !take("]")) refuse("'&&' before more than one class");
    const bool negated = other.starts_with("[^");
    return fmt::format("(?:(?{}[{}){}])", negated ? "!" : "=", other.substr(negated ? 2 : 1), members);
  }

  // After the '['.
  std::string char_class() {
    std::string out = take("^") ? "[^" : "[";
    if (looking_at("]")) refuse("']' at the front of a class");
    while (!take("]")) {
      if (at_end()) refuse("a class that is not closed");
      if (looking_at("[")) refuse("a class or [:name:] inside a class");
      if (take("&&")) return intersection(out);
      bool single = true;
      uint32_t first = 0;
      if (take("\\")) {
        std::string set;
        if (take("p")) set = property();
        else if (take("s")) set = white_space_for_class(false);
        else if (take("S")) set = white_space_for_class(true);
        else if (take("d")) set = property_for_class("Nd");
        else if (looking_at("P") || looking_at("D")) refuse("a negated property inside a class");
        else first = escaped_character();
        if (!set.empty()) {
          single = false;
          out += set;
          if (folding_) refuse("a property inside (?i:");
          if (looking_at("-") && !looking_at("-]")) refuse("'-' after a set of characters");
        }
      } else {
        first = take_code();
      }
      if (!single) continue;
      if (folding_ && first >= 0x80) refuse("a case-insensitive character outside ASCII");
      out += literal(first);
      if (looking_at("-") && !looking_at("-]")) {
        take("-");
        if (looking_at("[") || folding_) refuse("this range");
        const uint32_t last = take("\\") ? escaped_character() : take_code();
        if (last < first) refuse("a range that runs backwards");
        out += "-" + literal(last);
      }
    }
    return out + "]";
  }

  std::string_view pattern_;
  size_t position_ = 0;
  bool folding_ = false;
  char previous_folded_ = 0;
};

}  // namespace

std::string translate_oniguruma(std::string_view pattern) { return Translator(pattern).whole(); }

}  // namespace graft
