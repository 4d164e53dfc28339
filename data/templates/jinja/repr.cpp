#include "data/templates/jinja/repr.h"

#include <charconv>
#include <cmath>

#include "data/templates/jinja/operators.h"
#include "data/templates/jinja/python_text.h"

namespace graft::jinja {

std::string integer_text(Integer value) {
  if (value == 0) return "0";
  std::string digits;
  for (Integer rest = value; rest != 0; rest /= 10) {
    const int digit = static_cast<int>(rest % 10);
    digits += static_cast<char>('0' + (digit < 0 ? -digit : digit));
  }
  if (value < 0) digits += '-';
  return {digits.rbegin(), digits.rend()};
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  const std::string_view shortest(buffer, static_cast<size_t>(end - buffer));  // [-]d[.ddd]e[+-]dd
  const size_t mark = shortest.find('e');
  const int exponent = std::stoi(std::string(shortest.substr(mark + 1)));
  std::string digits, sign;
  for (const char c : shortest.substr(0, mark)) {
    if (c == '-') sign = "-";
    if (c >= '0' && c <= '9') digits += c;
  }
  if (exponent < -4 || exponent >= 16) {
    std::string result = sign + digits.substr(0, 1);
    if (digits.size() > 1) result += "." + digits.substr(1);
    return result + fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) return sign + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  const size_t whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole) return sign + digits + std::string(whole - digits.size(), '0') + ".0";
  return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

std::string repr_text(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos, has_double = text.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string result(1, quote);
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    const char32_t c = decode_code_point(text, position);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      result += '\\';
      result += static_cast<char>(c);
    } else if (c == '\n') {
      result += "\\n";
    } else if (c == '\r') {
      result += "\\r";
    } else if (c == '\t') {
      result += "\\t";
    } else if (c < 0x7F ? c >= 0x20 : is_printable(c)) {
      result += text.substr(begin, position - begin);
    } else if (c < 0x100) {
      result += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    } else if (c < 0x10000) {
      result += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else {
      result += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    }
  }
  return result += quote;
}

namespace {

void append_repr_of_items(Budget& budget, const Value& value, std::string& out, int depth) {
  const bool tuple = value.is(Kind::kTuple);
  out += tuple ? '(' : '[';
  for (size_t i = 0; i < value.items().size(); ++i) {
    if (i) out += ", ";
    append_repr(budget, value.items()[i], out, depth + 1);
  }
  if (tuple && value.items().size() == 1) out += ',';
  out += tuple ? ')' : ']';
}

void append_repr_of_entries(Budget& budget, const Value& dict, std::string& out, int depth) {
  out += '{';
  bool first = true;
  for (const auto& [key, item] : dict.dict().entries) {
    if (!first) out += ", ";
    first = false;
    append_repr(budget, key, out, depth + 1);
    out += ": ";
    append_repr(budget, item, out, depth + 1);
  }
  out += '}';
}

}  // namespace

void append_repr(Budget& budget, const Value& value, std::string& out, int depth) {
  budget.pay();
  budget.check_text(out.size());
  if (depth > budget.limits().nesting) raise_python("RecursionError", "maximum recursion depth exceeded while getting the repr of an object");
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined: out += "Undefined"; break;
    case Kind::kNone: out += "None"; break;
    case Kind::kBool: out += value.as_bool() ? "True" : "False"; break;
    case Kind::kInteger: out += integer_text(value.as_integer()); break;
    case Kind::kFloat: out += float_text(value.as_float()); break;
    case Kind::kString:
      budget.pay_for_text(value.text().size());
      out += value.is_markup() ? "Markup(" + repr_text(value.text()) + ")" : repr_text(value.text());
      break;
    case Kind::kList:
    case Kind::kTuple: append_repr_of_items(budget, value, out, depth); break;
    case Kind::kDict: append_repr_of_entries(budget, value, out, depth); break;
    case Kind::kRange:
      out += fmt::format("range({}, {}", value.range().start, value.range().stop);
      out += value.range().step == 1 ? ")" : fmt::format(", {})", value.range().step);
      break;
    case Kind::kView:
      out += type_name(value) + "(";
      append_repr(budget, make_list(&budget, to_vector(budget, value)), out, depth + 1);
      out += ')';
      break;
    case Kind::kNamespace: {
      out += "<TemplateNamespace {";
      bool first = true;
      for (const auto& [name, item] : value.name_space().attributes) {
        out += (first ? "" : ", ") + repr_text(name) + ": ";
        first = false;
        append_repr(budget, item, out, depth + 1);
      }
      out += "}>";
      break;
    }
    case Kind::kCallable:
      if (value.callable().type_name == "Macro") {
        out += "<Macro " + (value.callable().name.empty() ? "anonymous" : repr_text(value.callable().name)) + ">";
      } else {
        out += "<" + value.callable().type_name + " " + value.callable().name + ">";
      }
      break;
    case Kind::kGenerator: out += "<" + value.generator().type_name + " object>"; break;
    case Kind::kLoop: out += "<LoopContext>"; break;
  }
}

void append_text(Budget& budget, const Value& value, std::string& out) {
  if (value.is(Kind::kString)) {
    budget.pay_for_text(value.text().size());
    budget.check_text(out.size() + value.text().size());
    out += value.text();
  } else if (!value.is(Kind::kUndefined)) {
    append_repr(budget, value, out);
    budget.check_text(out.size());
  }
}

std::string to_text(Budget& budget, const Value& value) {
  std::string result;
  append_text(budget, value, result);
  return result;
}

}  // namespace graft::jinja
