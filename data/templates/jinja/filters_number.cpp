// Filters that make numbers.
#include <cerrno>
#include <cmath>
#include <cstdlib>

#include "data/templates/jinja/arguments.h"
#include "data/templates/jinja/filters.h"
#include "data/templates/jinja/operators.h"
#include "data/templates/jinja/python_text.h"

namespace graft::jinja {
namespace {

// int(text, base): nullopt for what Python refuses. White space around it and single underscores between digits are allowed.
std::optional<Integer> parse_integer(std::string_view text, int base) {
  text = strip(text, nullptr, true, true);
  bool negative = false;
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  if (text.size() > 2 && text[0] == '0') {
    const char prefix = static_cast<char>(text[1] | 0x20);
    const int prefix_base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 0;
    if (prefix_base && (base == 0 || base == prefix_base)) {
      base = prefix_base;
      text.remove_prefix(text[2] == '_' ? 3 : 2);
    }
  }
  if (base == 0) {
    if (text.size() > 1 && text[0] == '0' && text.find_first_not_of("0_") != std::string_view::npos) return std::nullopt;
    base = 10;
  }
  if (text.empty() || text.front() == '_' || text.back() == '_') return std::nullopt;
  Integer value = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '_') {
      if (text[i - 1] == '_') return std::nullopt;
      continue;
    }
    const int digit = c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'z' ? (c | 0x20) - 'a' + 10 : 99;
    if (digit >= base) return std::nullopt;
    if (__builtin_mul_overflow(value, Integer{base}, &value) || __builtin_add_overflow(value, Integer{digit}, &value)) {
      raise_python("OverflowError", "integers beyond 127 bits are not supported");
    }
  }
  return negative ? -value : value;
}

// float(text).
std::optional<double> parse_float(std::string_view text) {
  text = strip(text, nullptr, true, true);
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto is_digit = [&](size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
    if (text[i] == '_' && i > 0 && is_digit(i - 1) && is_digit(i + 1)) continue;
    if (text[i] == 'x' || text[i] == 'X' || text[i] == '(') return std::nullopt;  // strtod reads more than Python does
    digits += text[i];
  }
  if (digits.empty() || is_python_space(static_cast<unsigned char>(digits[0]))) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(digits.c_str(), &end);
  return end == digits.c_str() + digits.size() ? std::optional<double>(value) : std::nullopt;
}

std::optional<double> to_float(const Value& value) {
  if (value.is_number()) return value.as_float();
  if (value.is(Kind::kString)) return parse_float(value.text());
  if (value.is(Kind::kUndefined)) raise_undefined(value);
  return std::nullopt;
}

std::optional<Value> truncated(double value) {
  if (!std::isfinite(value)) return std::nullopt;
  if (std::fabs(value) >= 0x1p126) raise_python("OverflowError", "integers beyond 127 bits are not supported");
  return Value::integer(static_cast<Integer>(value));
}

Value to_int(Renderer&, const Value& subject, CallArguments& arguments) {
  const Parameters parameters("int", arguments, {"default", "base"});
  const Value otherwise = parameters.get(0, Value::integer(0));
  if (subject.is_integral()) return Value::integer(subject.as_integer());
  if (subject.is(Kind::kString)) {
    const int64_t base = parameters.integer(1, 10);
    if (base == 0 || (base >= 2 && base <= 36)) {
      if (const auto value = parse_integer(subject.text(), static_cast<int>(base))) return Value::integer(*value);
    }
  }
  if (subject.is(Kind::kFloat) && std::isinf(subject.as_float())) {
    raise_python("OverflowError", "cannot convert float infinity to integer");
  }
  const auto number = to_float(subject);
  return number ? truncated(*number).value_or(otherwise) : otherwise;
}

Value to_float_filter(Renderer&, const Value& subject, CallArguments& arguments) {
  const Parameters parameters("float", arguments, {"default"});
  const auto number = to_float(subject);
  return number ? Value::floating(*number) : parameters.get(0, Value::floating(0));
}

Value absolute(Renderer&, const Value& subject, CallArguments& arguments) {
  Parameters("abs", arguments, {});
  if (subject.is(Kind::kFloat)) return Value::floating(std::fabs(subject.as_float()));
  if (!subject.is_integral()) raise_python("TypeError", "bad operand type for abs(): '" + type_name(subject) + "'");
  return subject.as_integer() < 0 ? negate(subject) : Value::integer(subject.as_integer());
}

// Python rounds the exact binary value to the nearest decimal, ties to even; so does printf.
double round_to(double value, int64_t precision) {
  if (!std::isfinite(value) || precision > 320) return value;
  if (precision < -310) return std::copysign(0.0, value);
  if (precision >= 0) return std::strtod(fmt::format("{:.{}f}", value, precision).c_str(), nullptr);
  const double scale = std::pow(10.0, static_cast<double>(-precision));
  return std::nearbyint(value / scale) * scale;
}

Value round_filter(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  const Parameters parameters("round", arguments, {"precision", "method"});
  const int64_t precision = parameters.integer(0, 0);
  const std::string method = parameters.has(1) ? parameters.need_text(1) : "common";
  if (method == "common") {
    if (!subject.is_number()) raise_python("TypeError", "type " + type_name(subject) + " doesn't define __round__ method");
    if (!subject.is_integral()) return Value::floating(round_to(subject.as_float(), precision));
    if (precision >= 0) return Value::integer(subject.as_integer());
    raise_python("TypeError", "rounding an int to tens is not supported");
  }
  if (method != "ceil" && method != "floor") raise_python("FilterArgumentError", "method must be common, ceil or floor");
  const Value scale = binary(renderer.budget(), BinaryOperator::kPower, Value::integer(10), Value::integer(precision));
  const Value scaled = binary(renderer.budget(), BinaryOperator::kMultiply, subject, scale);
  if (!scaled.is_number()) raise_python("TypeError", "must be real number, not " + type_name(scaled));
  const double rounded = method == "ceil" ? std::ceil(scaled.as_float()) : std::floor(scaled.as_float());
  return Value::floating(rounded / scale.as_float());
}

}  // namespace

const FilterTable& number_filters() {
  static const FilterTable table = {{"int", to_int}, {"float", to_float_filter}, {"abs", absolute}, {"round", round_filter}};
  return table;
}

}  // namespace graft::jinja
