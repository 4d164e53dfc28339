// What stands after `is`.
#include "data/templates/jinja/tests.h"

#include <unordered_map>

#include "data/templates/jinja/arguments.h"
#include "data/templates/jinja/filters.h"
#include "data/templates/jinja/operators.h"
#include "data/templates/jinja/python_text.h"

namespace graft::jinja {
namespace {

template <bool (*kPredicate)(const Value&)>
bool simple(Renderer&, const Value& subject, CallArguments& arguments) {
  Parameters("test", arguments, {});
  return kPredicate(subject);
}

template <Order kOrder>
bool in_order(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  return ordered(renderer.budget(), kOrder, subject, Parameters("test", arguments, {"other"}).need(0));
}

bool equal_to(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  return equal(&renderer.budget(), subject, Parameters("equalto", arguments, {"other"}).need(0));
}

bool not_equal_to(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  return !equal_to(renderer, subject, arguments);
}

bool is_in(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  return contains(renderer.budget(), Parameters("in", arguments, {"seq"}).need(0), subject);
}

bool same_as(Renderer&, const Value& subject, CallArguments& arguments) {
  const Value other = Parameters("sameas", arguments, {"other"}).need(0);
  if (subject.kind() != other.kind()) return false;
  if (subject.is(Kind::kFloat)) return subject.as_float() == other.as_float();
  return subject.identity() == other.identity() && subject.as_integer() == other.as_integer();
}

bool remainder_is(Renderer& renderer, const Value& subject, const Value& divisor, int64_t wanted) {
  return equal(&renderer.budget(), binary(renderer.budget(), BinaryOperator::kModulo, subject, divisor), Value::integer(wanted));
}

bool odd(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  Parameters("odd", arguments, {});
  return remainder_is(renderer, subject, Value::integer(2), 1);
}

bool even(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  Parameters("even", arguments, {});
  return remainder_is(renderer, subject, Value::integer(2), 0);
}

bool divisible_by(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  return remainder_is(renderer, subject, Parameters("divisibleby", arguments, {"num"}).need(0), 0);
}

bool lower_case(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  Parameters("lower", arguments, {});
  return is_lower(renderer.text_of(subject));
}

bool upper_case(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  Parameters("upper", arguments, {});
  return is_upper(renderer.text_of(subject));
}

bool is_filter_name(Renderer&, const Value& subject, CallArguments&) {
  return subject.is(Kind::kString) && find_filter(subject.text());
}

bool is_test_name(Renderer&, const Value& subject, CallArguments&) { return subject.is(Kind::kString) && find_test(subject.text()); }

bool defined(const Value& v) { return !v.is(Kind::kUndefined); }
bool undefined(const Value& v) { return v.is(Kind::kUndefined); }
bool none(const Value& v) { return v.is(Kind::kNone); }
bool boolean(const Value& v) { return v.is(Kind::kBool); }
bool is_true(const Value& v) { return v.is(Kind::kBool) && v.as_bool(); }
bool is_false(const Value& v) { return v.is(Kind::kBool) && !v.as_bool(); }
bool integer(const Value& v) { return v.is(Kind::kInteger); }
bool floating(const Value& v) { return v.is(Kind::kFloat); }
bool number(const Value& v) { return v.is_number(); }
bool string(const Value& v) { return v.is(Kind::kString); }
bool mapping(const Value& v) { return v.is(Kind::kDict); }
bool escaped(const Value& v) { return v.is_markup(); }
bool callable(const Value& v) { return v.is(Kind::kCallable) || v.is(Kind::kUndefined); }
bool iterable(const Value& v) { return is_iterable(v); }
bool sequence(const Value& v) {
  return v.is(Kind::kString) || v.is(Kind::kList) || v.is(Kind::kTuple) || v.is(Kind::kDict) || v.is(Kind::kRange) ||
         v.is(Kind::kUndefined);
}

const std::unordered_map<std::string_view, Test>& table() {
  static const std::unordered_map<std::string_view, Test> tests = {
      {"defined", simple<defined>}, {"undefined", simple<undefined>}, {"none", simple<none>},
      {"boolean", simple<boolean>}, {"true", simple<is_true>}, {"false", simple<is_false>},
      {"integer", simple<integer>}, {"float", simple<floating>}, {"number", simple<number>},
      {"string", simple<string>}, {"mapping", simple<mapping>}, {"escaped", simple<escaped>},
      {"callable", simple<callable>}, {"iterable", simple<iterable>}, {"sequence", simple<sequence>},
      {"odd", odd}, {"even", even}, {"divisibleby", divisible_by},
      {"lower", lower_case}, {"upper", upper_case}, {"sameas", same_as},
      {"in", is_in}, {"filter", is_filter_name}, {"test", is_test_name},
      {"==", equal_to}, {"eq", equal_to}, {"equalto", equal_to},
      {"!=", not_equal_to}, {"ne", not_equal_to},
      {"<", in_order<Order::kLess>}, {"lt", in_order<Order::kLess>}, {"lessthan", in_order<Order::kLess>},
      {"<=", in_order<Order::kLessEqual>}, {"le", in_order<Order::kLessEqual>},
      {">", in_order<Order::kGreater>}, {"gt", in_order<Order::kGreater>}, {"greaterthan", in_order<Order::kGreater>},
      {">=", in_order<Order::kGreaterEqual>}, {"ge", in_order<Order::kGreaterEqual>}};
  return tests;
}

}  // namespace

Test find_test(std::string_view name) {
  const auto found = table().find(name);
  return found == table().end() ? nullptr : found->second;
}

}  // namespace graft::jinja
