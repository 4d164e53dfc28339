// Truth, equality, order, membership.
#include <algorithm>

#include "data/templates/jinja/operators.h"
#include "data/templates/jinja/python_text.h"
#include "data/templates/jinja/repr.h"

namespace graft::jinja {
namespace {

bool equal_items(Budget* budget, const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!equal(budget, a[i], b[i])) return false;
  }
  return true;
}

bool equal_dicts(Budget* budget, const DictObject& a, const DictObject& b) {
  if (a.entries.size() != b.entries.size()) return false;
  Budget unmetered{Limits{}};
  for (const auto& [key, value] : a.entries) {
    const Value* other = b.find(budget ? *budget : unmetered, key);
    if (!other || !equal(budget, value, *other)) return false;
  }
  return true;
}

bool equal_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.as_integer() == b.as_integer();
  return a.as_float() == b.as_float();
}

template <typename T>
bool holds(Order order, const T& a, const T& b) {
  switch (order) {
    case Order::kLess: return a < b;
    case Order::kLessEqual: return a <= b;
    case Order::kGreater: return a > b;
    case Order::kGreaterEqual: return a >= b;
  }
  return false;
}

}  // namespace

bool truth(const Value& value) {
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
    case Kind::kNone: return false;
    case Kind::kBool:
    case Kind::kInteger: return value.as_integer() != 0;
    case Kind::kFloat: return value.as_float() != 0;
    default: return length_of(value).value_or(1) != 0;
  }
}

bool equal(Budget* budget, const Value& a, const Value& b) {
  if (budget) budget->pay();
  if (a.is_number() && b.is_number()) return equal_numbers(a, b);
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
    case Kind::kNone: return true;
    case Kind::kString:
      if (budget) budget->pay_for_text(std::min(a.text().size(), b.text().size()));
      return a.text() == b.text();
    case Kind::kList:
    case Kind::kTuple: return a.identity() == b.identity() || equal_items(budget, a.items(), b.items());
    case Kind::kDict: return a.identity() == b.identity() || equal_dicts(budget, a.dict(), b.dict());
    case Kind::kRange: {
      const RangeObject &left = a.range(), &right = b.range();
      if (left.size() != right.size()) return false;
      return left.size() == 0 || (left.start == right.start && (left.size() == 1 || left.step == right.step));
    }
    default: return a.identity() == b.identity();
  }
}

bool ordered(Budget& budget, Order order, const Value& a, const Value& b) {
  budget.pay();
  if (a.is(Kind::kUndefined)) raise_undefined(a);
  if (b.is(Kind::kUndefined)) raise_undefined(b);
  if (a.is_integral() && b.is_integral()) return holds(order, a.as_integer(), b.as_integer());
  if (a.is_number() && b.is_number()) return holds(order, a.as_float(), b.as_float());
  if (a.is(Kind::kString) && b.is(Kind::kString)) {  // the order of UTF-8 bytes is that of code points
    budget.pay_for_text(std::min(a.text().size(), b.text().size()));
    return holds(order, a.text().compare(b.text()), 0);
  }
  if (a.kind() == b.kind() && (a.is(Kind::kList) || a.is(Kind::kTuple))) {
    const size_t common = std::min(a.items().size(), b.items().size());
    for (size_t i = 0; i < common; ++i) {
      if (!equal(&budget, a.items()[i], b.items()[i])) return ordered(budget, order, a.items()[i], b.items()[i]);
    }
    return holds(order, a.items().size(), b.items().size());
  }
  static constexpr const char* kSymbols[] = {"<", "<=", ">", ">="};
  raise_python("TypeError", fmt::format("'{}' not supported between instances of '{}' and '{}'",
                                        kSymbols[static_cast<int>(order)], type_name(a), type_name(b)));
}

void check_hashable(const Value& key) {
  if (key.is(Kind::kList) || key.is(Kind::kDict)) raise_python("TypeError", "unhashable type: '" + type_name(key) + "'");
  if (key.is(Kind::kTuple)) {
    for (const Value& item : key.items()) check_hashable(item);
  }
}

bool contains(Budget& budget, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kString:
      if (!item.is(Kind::kString)) {
        raise_python("TypeError", "'in <string>' requires string as left operand, not " + type_name(item));
      }
      budget.pay_for_text(container.text().size());
      return find_bytes(container.text(), item.text()) != std::string_view::npos;
    case Kind::kDict: return container.dict().find(budget, item) != nullptr;
    case Kind::kView:
      if (container.view().part == ViewObject::Part::kKeys) return container.view().dict.dict().find(budget, item) != nullptr;
      break;
    default:
      if (!is_iterable(container)) raise_python("TypeError", "argument of type '" + type_name(container) + "' is not iterable");
  }
  const Next next = iterate(budget, container);
  for (Value element; next(element);) {
    if (equal(&budget, element, item)) return true;
  }
  return false;
}

}  // namespace graft::jinja
