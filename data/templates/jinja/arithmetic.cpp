// + - * / // % ** with Python's rules for numbers, text and lists.
#include <cmath>

#include "data/templates/jinja/operators.h"
#include "data/templates/jinja/python_text.h"

namespace graft::jinja {
namespace {

[[noreturn]] void overflow() { raise_python("OverflowError", "integers beyond 127 bits are not supported"); }

const char* symbol_of(BinaryOperator operation) {
  switch (operation) {
    case BinaryOperator::kAdd: return "+";
    case BinaryOperator::kSubtract: return "-";
    case BinaryOperator::kMultiply: return "*";
    case BinaryOperator::kDivide: return "/";
    case BinaryOperator::kFloorDivide: return "//";
    case BinaryOperator::kModulo: return "%";
    case BinaryOperator::kPower: return "** or pow()";
  }
  return "?";
}

Integer floor_divide(Integer a, Integer b) {
  const Integer quotient = a / b;
  return (a % b != 0 && (a < 0) != (b < 0)) ? quotient - 1 : quotient;
}

Value integer_power(Integer base, Integer exponent) {
  if (exponent < 0) {
    if (base == 0) raise_python("ZeroDivisionError", "0.0 cannot be raised to a negative power");
    return Value::floating(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  Integer result = 1;
  while (exponent > 0) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) overflow();
  }
  return Value::integer(result);
}

Value on_integers(BinaryOperator operation, Integer a, Integer b) {
  Integer result = 0;
  switch (operation) {
    case BinaryOperator::kAdd:
      if (__builtin_add_overflow(a, b, &result)) overflow();
      return Value::integer(result);
    case BinaryOperator::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) overflow();
      return Value::integer(result);
    case BinaryOperator::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) overflow();
      return Value::integer(result);
    case BinaryOperator::kPower: return integer_power(a, b);
    default: break;
  }
  if (b == 0) {
    raise_python("ZeroDivisionError",
                 operation == BinaryOperator::kDivide ? "division by zero" : "integer division or modulo by zero");
  }
  if (b == -1) {  // the one quotient that overflows; its remainder is 0
    if (operation == BinaryOperator::kModulo) return Value::integer(0);
    if (__builtin_sub_overflow(Integer{0}, a, &result)) overflow();
    return operation == BinaryOperator::kDivide ? Value::floating(static_cast<double>(result)) : Value::integer(result);
  }
  if (operation == BinaryOperator::kDivide) return Value::floating(static_cast<double>(a) / static_cast<double>(b));
  const Integer quotient = floor_divide(a, b);
  return Value::integer(operation == BinaryOperator::kFloorDivide ? quotient : a - quotient * b);
}

Value on_floats(BinaryOperator operation, double a, double b) {
  switch (operation) {
    case BinaryOperator::kAdd: return Value::floating(a + b);
    case BinaryOperator::kSubtract: return Value::floating(a - b);
    case BinaryOperator::kMultiply: return Value::floating(a * b);
    case BinaryOperator::kPower: {
      if (a == 0 && b < 0) raise_python("ZeroDivisionError", "0.0 cannot be raised to a negative power");
      const double result = std::pow(a, b);
      if (std::isnan(result) && !std::isnan(a) && !std::isnan(b)) {
        raise_python("TypeError", "complex numbers are not supported in templates");
      }
      if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) {
        raise_python("OverflowError", "(34, 'Numerical result out of range')");
      }
      return Value::floating(result);
    }
    default: break;
  }
  if (b == 0) {
    raise_python("ZeroDivisionError", operation == BinaryOperator::kDivide ? "float division by zero" : "float modulo");
  }
  if (operation == BinaryOperator::kDivide) return Value::floating(a / b);
  double remainder = std::fmod(a, b);
  double quotient = (a - remainder) / b;
  if (remainder != 0 && (b < 0) != (remainder < 0)) {
    remainder += b;
    quotient -= 1;
  }
  if (operation == BinaryOperator::kModulo) return Value::floating(remainder == 0 ? std::copysign(0.0, b) : remainder);
  if (quotient == 0) return Value::floating(std::copysign(0.0, a / b));
  const double floored = std::floor(quotient);
  return Value::floating(quotient - floored > 0.5 ? floored + 1 : floored);
}

Value add_text(Budget& budget, const Value& a, const Value& b) {
  if (!a.is_markup() && !b.is_markup()) {
    budget.check_text(a.text().size() + b.text().size());
    std::string result;
    result.reserve(a.text().size() + b.text().size());
    result += a.text();
    result += b.text();
    return make_string(&budget, std::move(result));
  }
  budget.pay_for_text(a.text().size() + b.text().size());
  const auto safe = [](const Value& value) { return value.is_markup() ? value.text() : escape_html(value.text()); };
  return make_string(&budget, safe(a) + safe(b), true);
}

Value repeat(Budget& budget, const Value& sequence, Integer count) {
  if (count < 0) count = 0;
  const size_t size = sequence.is(Kind::kString) ? sequence.text().size() : sequence.items().size() * sizeof(Value);
  if (size > 0 && count > Integer(budget.limits().output / size)) budget.check_text(budget.limits().output + 1);
  if (size == 0) count = 0;
  budget.pay_for_text(size * static_cast<size_t>(count));
  if (sequence.is(Kind::kString)) {
    std::string text;
    text.reserve(size * static_cast<size_t>(count));
    for (Integer i = 0; i < count; ++i) text += sequence.text();
    return make_string(&budget, std::move(text), sequence.is_markup());
  }
  std::vector<Value> items;
  for (Integer i = 0; i < count; ++i) items.insert(items.end(), sequence.items().begin(), sequence.items().end());
  return sequence.is(Kind::kList) ? make_list(&budget, std::move(items)) : make_tuple(&budget, std::move(items));
}

bool is_sequence(const Value& value) { return value.is(Kind::kString) || value.is(Kind::kList) || value.is(Kind::kTuple); }

Value concatenate(Budget& budget, const Value& a, const Value& b) {
  std::vector<Value> items = a.items();
  items.insert(items.end(), b.items().begin(), b.items().end());
  return a.is(Kind::kList) ? make_list(&budget, std::move(items)) : make_tuple(&budget, std::move(items));
}

}  // namespace

Value binary(Budget& budget, BinaryOperator operation, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return on_integers(operation, a.as_integer(), b.as_integer());
    return on_floats(operation, a.as_float(), b.as_float());
  }
  if (a.is(Kind::kString) && operation == BinaryOperator::kModulo) {
    raise_python("TypeError", "the % operator on text is not supported in templates; use ~ or .format()");
  }
  if (a.is(Kind::kUndefined)) raise_undefined(a);
  if (b.is(Kind::kUndefined)) raise_undefined(b);
  if (operation == BinaryOperator::kAdd && is_sequence(a)) {
    if (a.is(Kind::kString) && b.is(Kind::kString)) return add_text(budget, a, b);
    if (a.kind() == b.kind()) return concatenate(budget, a, b);
    if (!a.is_markup()) {
      const std::string left = type_name(a);
      raise_python("TypeError", fmt::format("can only concatenate {} (not \"{}\") to {}", left, type_name(b), left));
    }
  }
  if (operation == BinaryOperator::kMultiply && (is_sequence(a) || is_sequence(b))) {
    if (is_sequence(a) && b.is_integral()) return repeat(budget, a, b.as_integer());
    if (is_sequence(b) && a.is_integral()) return repeat(budget, b, a.as_integer());
    raise_python("TypeError", fmt::format("can't multiply sequence by non-int of type {}",
                                          "'" + type_name(is_sequence(a) ? b : a) + "'"));
  }
  raise_python("TypeError", fmt::format("unsupported operand type(s) for {}: '{}' and '{}'", symbol_of(operation), type_name(a),
                                        type_name(b)));
}

Value negate(const Value& value) {
  if (value.is(Kind::kFloat)) return Value::floating(-value.as_float());
  if (value.is(Kind::kUndefined)) raise_undefined(value);
  if (!value.is_integral()) raise_python("TypeError", "bad operand type for unary -: '" + type_name(value) + "'");
  Integer result = 0;
  if (__builtin_sub_overflow(Integer{0}, value.as_integer(), &result)) overflow();
  return Value::integer(result);
}

Value unary_plus(const Value& value) {
  if (value.is(Kind::kUndefined)) raise_undefined(value);
  if (value.is(Kind::kFloat)) return value;
  if (!value.is_integral()) raise_python("TypeError", "bad operand type for unary +: '" + type_name(value) + "'");
  return Value::integer(value.as_integer());
}

}  // namespace graft::jinja
