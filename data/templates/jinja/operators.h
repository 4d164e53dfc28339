// Python's operators and protocols over values, with Python's errors.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "data/templates/jinja/value.h"

namespace graft::jinja {

bool truth(const Value& value);
// budget null: unmetered, for constants of the template. Numbers compare across types; containers by content; the rest by identity.
bool equal(Budget* budget, const Value& a, const Value& b);
enum class Order { kLess, kLessEqual, kGreater, kGreaterEqual };
bool ordered(Budget& budget, Order order, const Value& a, const Value& b);  // TypeError where Python has no order
inline bool less(Budget& budget, const Value& a, const Value& b) { return ordered(budget, Order::kLess, a, b); }
void check_hashable(const Value& key);                                          // TypeError: unhashable type

enum class BinaryOperator { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
Value binary(Budget& budget, BinaryOperator operation, const Value& a, const Value& b);
Value negate(const Value& value);
Value unary_plus(const Value& value);
bool contains(Budget& budget, const Value& container, const Value& item);  // item in container

// len(value); nullopt where Python raises TypeError.
std::optional<int64_t> length_of(const Value& value);
int64_t length(const Value& value);

// iter(value): TypeError where it cannot be iterated. The closure keeps the value alive.
Next iterate(Budget& budget, const Value& value);
std::vector<Value> to_vector(Budget& budget, const Value& value);
bool is_iterable(const Value& value);

// value[index]: nullopt where Python raises TypeError or LookupError.
std::optional<Value> subscript(Budget& budget, const Value& value, const Value& index);
Value slice(Budget& budget, const Value& value, const Value& start, const Value& stop, const Value& step);

}  // namespace graft::jinja
