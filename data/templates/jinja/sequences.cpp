// Length, iteration, subscripts and slices.
#include <algorithm>
#include <limits>

#include "data/templates/jinja/loop.h"
#include "data/templates/jinja/operators.h"
#include "data/templates/jinja/python_text.h"

namespace graft::jinja {
namespace {

std::string one_code_point(const std::string& text, size_t& position) {
  const size_t begin = position;
  decode_code_point(text, position);
  return text.substr(begin, position - begin);
}

Value entry_part(Budget& budget, const std::pair<Value, Value>& entry, ViewObject::Part part) {
  switch (part) {
    case ViewObject::Part::kKeys: return entry.first;
    case ViewObject::Part::kValues: return entry.second;
    case ViewObject::Part::kItems: break;
  }
  return make_tuple(&budget, {entry.first, entry.second});
}

// Python's slice.indices(): the elements that start, stop and step select of `size`.
struct SliceIndices {
  int64_t start, stop, step, count;
};

int64_t slice_index(const Value& value) {
  if (!value.is_integral()) {
    raise_python("TypeError", "slice indices must be integers or None or have an __index__ method");
  }
  constexpr Integer kFar = Integer{1} << 60;
  return static_cast<int64_t>(std::clamp(value.as_integer(), -kFar, kFar));
}

int64_t saturate(Integer value) {
  return static_cast<int64_t>(std::clamp(value, Integer(std::numeric_limits<int64_t>::min()), Integer(std::numeric_limits<int64_t>::max())));
}

SliceIndices resolve_slice(int64_t size, const Value& start, const Value& stop, const Value& step) {
  SliceIndices result{0, 0, step.is(Kind::kNone) ? 1 : slice_index(step), 0};
  if (result.step == 0) raise_python("ValueError", "slice step cannot be zero");
  const bool backwards = result.step < 0;
  const int64_t lower = backwards ? -1 : 0, upper = backwards ? size - 1 : size;
  const auto bound = [&](const Value& value, int64_t otherwise) {
    if (value.is(Kind::kNone)) return otherwise;
    int64_t index = slice_index(value);
    if (index < 0) index += size;
    return std::clamp(index, lower, upper);
  };
  result.start = bound(start, backwards ? upper : lower);
  result.stop = bound(stop, backwards ? lower : upper);
  const int64_t distance = backwards ? result.start - result.stop : result.stop - result.start;
  const int64_t stride = backwards ? -result.step : result.step;
  result.count = distance <= 0 ? 0 : (distance - 1) / stride + 1;
  return result;
}

Value slice_text(Budget& budget, const Value& value, const SliceIndices& part) {
  const std::string& text = value.text();
  budget.pay_for_text(text.size());
  std::string result;
  if (length_in_code_points(value) == static_cast<int64_t>(text.size())) {
    if (part.step == 1) return make_string(&budget, text.substr(static_cast<size_t>(part.start), static_cast<size_t>(part.count)), value.is_markup());
    for (int64_t i = 0; i < part.count; ++i) result += text[static_cast<size_t>(part.start + i * part.step)];
    return make_string(&budget, std::move(result), value.is_markup());
  }
  budget.pay_for_text(8 * text.size());
  const std::vector<size_t> offsets = code_point_offsets(text);
  for (int64_t i = 0; i < part.count; ++i) {
    const size_t at = static_cast<size_t>(part.start + i * part.step);
    result += text.substr(offsets[at], offsets[at + 1] - offsets[at]);
  }
  return make_string(&budget, std::move(result), value.is_markup());
}

}  // namespace

std::optional<int64_t> length_of(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined: return 0;
    case Kind::kString: return length_in_code_points(value);
    case Kind::kList:
    case Kind::kTuple: return static_cast<int64_t>(value.items().size());
    case Kind::kDict: return static_cast<int64_t>(value.dict().entries.size());
    case Kind::kView: return static_cast<int64_t>(value.view().dict.dict().entries.size());
    case Kind::kRange: return value.range().size();
    default: return std::nullopt;
  }
}

int64_t length(const Value& value) {
  const auto result = length_of(value);
  if (!result) raise_python("TypeError", "object of type '" + type_name(value) + "' has no len()");
  return *result;
}

bool is_iterable(const Value& value) {
  return length_of(value).has_value() || value.is(Kind::kGenerator) || value.is(Kind::kLoop);
}

Next iterate(Budget& budget, const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined: return [](Value&) { return false; };
    case Kind::kString:
      return [&budget, value, position = size_t{0}](Value& out) mutable {
        if (position == value.text().size()) return false;
        out = make_string(&budget, one_code_point(value.text(), position));
        return true;
      };
    case Kind::kList:
    case Kind::kTuple:
      return [&budget, value, index = size_t{0}](Value& out) mutable {
        budget.pay();
        if (index == value.items().size()) return false;
        out = value.items()[index++];
        return true;
      };
    case Kind::kDict:
    case Kind::kView: {
      const bool view = value.is(Kind::kView);
      return [&budget, dict = view ? value.view().dict : value, part = view ? value.view().part : ViewObject::Part::kKeys,
              index = size_t{0}](Value& out) mutable {
        budget.pay();
        if (index == dict.dict().entries.size()) return false;
        out = entry_part(budget, dict.dict().entries[index++], part);
        return true;
      };
    }
    case Kind::kRange:
      return [&budget, value, index = int64_t{0}](Value& out) mutable {
        budget.pay();
        if (index == value.range().size()) return false;
        out = Value::integer(Integer(value.range().start) + Integer(index++) * value.range().step);
        return true;
      };
    case Kind::kGenerator:
      return [&budget, value](Value& out) {
        budget.pay();
        return value.generator().next(out);
      };
    case Kind::kLoop:
      return [&budget, value](Value& out) {
        budget.pay();
        return value.loop().advance(out);
      };
    default: raise_python("TypeError", "'" + type_name(value) + "' object is not iterable");
  }
}

std::vector<Value> to_vector(Budget& budget, const Value& value) {
  if (value.is(Kind::kList) || value.is(Kind::kTuple)) {
    budget.pay(1 + static_cast<int64_t>(value.items().size() / 4));
    return value.items();
  }
  std::vector<Value> items;
  const Next next = iterate(budget, value);
  for (Value item; next(item);) {
    items.push_back(std::move(item));
    if (items.size() * sizeof(Value) > budget.limits().memory / 2) budget.allocate(budget.limits().memory + 1);
  }
  return items;
}

std::optional<Value> subscript(Budget& budget, const Value& value, const Value& index) {
  switch (value.kind()) {
    case Kind::kUndefined: raise_undefined(value);
    case Kind::kDict: {
      if (index.is(Kind::kList) || index.is(Kind::kDict)) return std::nullopt;
      const Value* found = value.dict().find(budget, index);
      return found ? std::optional<Value>(*found) : std::nullopt;
    }
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange: break;
    default: return std::nullopt;
  }
  if (!index.is_integral()) return std::nullopt;
  const int64_t size = length(value);
  const Integer wanted = index.as_integer() < 0 ? index.as_integer() + size : index.as_integer();
  if (wanted < 0 || wanted >= size) return std::nullopt;
  const size_t at = static_cast<size_t>(wanted);
  if (value.is(Kind::kRange)) return Value::integer(Integer(value.range().start) + wanted * value.range().step);
  if (!value.is(Kind::kString)) return value.items()[at];
  const std::string& text = value.text();
  if (size == static_cast<int64_t>(text.size())) return make_string(&budget, text.substr(at, 1), value.is_markup());
  budget.pay_for_text(text.size());
  size_t begin = byte_offset(text, static_cast<int64_t>(at));
  return make_string(&budget, one_code_point(text, begin), value.is_markup());
}

Value slice(Budget& budget, const Value& value, const Value& start, const Value& stop, const Value& step) {
  switch (value.kind()) {
    case Kind::kUndefined: raise_undefined(value);
    case Kind::kDict: raise_python("TypeError", "unhashable type: 'slice'");
    case Kind::kString: return slice_text(budget, value, resolve_slice(length(value), start, stop, step));
    case Kind::kList:
    case Kind::kTuple: {
      const SliceIndices part = resolve_slice(length(value), start, stop, step);
      budget.pay(1 + part.count / 4);
      std::vector<Value> items;
      for (int64_t i = 0; i < part.count; ++i) items.push_back(value.items()[static_cast<size_t>(part.start + i * part.step)]);
      return value.is(Kind::kList) ? make_list(&budget, std::move(items)) : make_tuple(&budget, std::move(items));
    }
    case Kind::kRange: {
      const SliceIndices part = resolve_slice(length(value), start, stop, step);
      const RangeObject& range = value.range();
      const auto element = [&](int64_t i) { return saturate(Integer(range.start) + Integer(i) * range.step); };
      return make_range(&budget, element(part.start), element(part.stop), saturate(Integer(part.step) * range.step));
    }
    default: raise_python("TypeError", "'" + type_name(value) + "' object is not subscriptable");
  }
}

}  // namespace graft::jinja
