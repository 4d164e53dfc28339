#include "data/templates/jinja/value.h"

#include <algorithm>

#include "data/templates/jinja/operators.h"
#include "data/templates/jinja/python_text.h"
#include "data/templates/jinja/repr.h"

namespace graft::jinja {
namespace {

constexpr size_t kObjectBytes = 96;  // shared_ptr's block and the object itself, roughly
constexpr size_t kIndexFrom = 8;     // entries of a dict before an index of its keys pays

template <typename T>
std::shared_ptr<T> make_object(Budget* budget, size_t bytes, int inner_depth) {
  auto object = std::make_shared<T>();
  object->depth = inner_depth + 1;
  if (budget) {
    budget->check_nesting(object->depth);
    object->charge = Charge(budget, kObjectBytes + bytes);
  }
  return object;
}

int deepest(const std::vector<Value>& items) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  return depth;
}

Value make_sequence(Budget* budget, Kind kind, std::vector<Value> items) {
  auto object = make_object<ListObject>(budget, items.size() * sizeof(Value), deepest(items));
  if (budget) budget->pay(1 + static_cast<int64_t>(items.size() / 4));
  object->items = std::move(items);
  return Value(kind, std::move(object));
}

}  // namespace

Value Value::boolean(bool value) {
  Value result(Kind::kBool);
  result.integer_ = value;
  return result;
}

Value Value::integer(Integer value) {
  Value result(Kind::kInteger);
  result.integer_ = value;
  return result;
}

Value Value::floating(double value) {
  Value result(Kind::kFloat);
  result.float_ = value;
  return result;
}

const std::string& Value::text() const { return static_cast<const StringObject*>(object_.get())->text; }
bool Value::is_markup() const { return kind_ == Kind::kString && static_cast<const StringObject*>(object_.get())->markup; }
const std::vector<Value>& Value::items() const { return static_cast<const ListObject*>(object_.get())->items; }
const DictObject& Value::dict() const { return *static_cast<const DictObject*>(object_.get()); }
UndefinedObject& Value::undefined() const { return *static_cast<UndefinedObject*>(object_.get()); }
NamespaceObject& Value::name_space() const { return *static_cast<NamespaceObject*>(object_.get()); }
CallableObject& Value::callable() const { return *static_cast<CallableObject*>(object_.get()); }
GeneratorObject& Value::generator() const { return *static_cast<GeneratorObject*>(object_.get()); }
const RangeObject& Value::range() const { return *static_cast<const RangeObject*>(object_.get()); }
const ViewObject& Value::view() const { return *static_cast<const ViewObject*>(object_.get()); }

int64_t length_in_code_points(const Value& string) { return static_cast<const StringObject*>(string.identity())->length; }

Value make_string(Budget* budget, std::string text, bool markup) {
  if (budget) {
    budget->check_text(text.size());
    budget->pay_for_text(text.size());
  }
  auto object = make_object<StringObject>(budget, text.capacity(), 0);
  object->length = count_code_points(text);
  object->text = std::move(text);
  object->markup = markup;
  return Value(Kind::kString, std::move(object));
}

Value make_list(Budget* budget, std::vector<Value> items) { return make_sequence(budget, Kind::kList, std::move(items)); }
Value make_tuple(Budget* budget, std::vector<Value> items) { return make_sequence(budget, Kind::kTuple, std::move(items)); }

Value make_dict(Budget* budget, std::vector<std::pair<Value, Value>> entries) {
  int depth = 0;
  for (const auto& [key, value] : entries) depth = std::max({depth, key.depth(), value.depth()});
  const size_t entry_bytes = entries.size() > kIndexFrom ? 2 * sizeof(Value) + 64 : 2 * sizeof(Value);
  auto object = make_object<DictObject>(budget, entries.size() * entry_bytes, depth);
  if (budget) budget->pay(1 + static_cast<int64_t>(entries.size()));
  const bool indexed = entries.size() > kIndexFrom;
  object->entries.reserve(entries.size());
  for (auto& [key, value] : entries) {
    check_hashable(key);
    const Value* present = nullptr;
    if (key.is(Kind::kString) && indexed) {
      const auto found = object->text_index.find(key.text());
      if (found != object->text_index.end()) present = &object->entries[found->second].second;
    } else {
      for (const auto& entry : object->entries) {
        if (budget) budget->pay();
        if (equal(budget, entry.first, key)) present = &entry.second;
      }
    }
    if (present) {
      *const_cast<Value*>(present) = std::move(value);
      continue;
    }
    object->entries.emplace_back(std::move(key), std::move(value));
    const Value& stored = object->entries.back().first;
    if (indexed && stored.is(Kind::kString)) object->text_index.emplace(stored.text(), object->entries.size() - 1);
  }
  return Value(Kind::kDict, std::move(object));
}

const Value* DictObject::find(std::string_view key) const {
  if (!text_index.empty()) {
    const auto found = text_index.find(key);
    return found == text_index.end() ? nullptr : &entries[found->second].second;
  }
  for (const auto& [name, value] : entries) {
    if (name.is(Kind::kString) && name.text() == key) return &value;
  }
  return nullptr;
}

const Value* DictObject::find(Budget& budget, const Value& key) const {
  check_hashable(key);
  if (key.is(Kind::kString)) return find(std::string_view(key.text()));
  budget.pay(static_cast<int64_t>(entries.size()));
  for (const auto& [name, value] : entries) {
    if (equal(&budget, name, key)) return &value;
  }
  return nullptr;
}

Value make_range(Budget* budget, int64_t start, int64_t stop, int64_t step) {
  auto object = make_object<RangeObject>(budget, 0, 0);
  object->start = start;
  object->stop = stop;
  object->step = step;
  return Value(Kind::kRange, std::move(object));
}

int64_t RangeObject::size() const {
  const Integer distance = step > 0 ? Integer(stop) - start : Integer(start) - stop;
  const Integer stride = step > 0 ? Integer(step) : -Integer(step);
  return distance <= 0 ? 0 : static_cast<int64_t>((distance + stride - 1) / stride);
}

Value make_view(Budget* budget, Value dict, ViewObject::Part part) {
  auto object = make_object<ViewObject>(budget, 0, dict.depth());
  object->dict = std::move(dict);
  object->part = part;
  return Value(Kind::kView, std::move(object));
}

Value make_generator(Budget* budget, Next next, int depth, std::string type_name) {
  auto object = make_object<GeneratorObject>(budget, 128, depth);
  object->next = std::move(next);
  object->type_name = std::move(type_name);
  return Value(Kind::kGenerator, std::move(object));
}

Value make_callable(Budget* budget, std::string name, std::function<Value(Renderer&, CallArguments&)> call, int depth) {
  auto object = make_object<CallableObject>(budget, 128, depth);
  object->name = std::move(name);
  object->call = std::move(call);
  return Value(Kind::kCallable, std::move(object));
}

Value make_undefined(Budget* budget, std::string name, Value owner, bool name_is_text) {
  auto object = make_object<UndefinedObject>(budget, name.size(), owner.depth());
  object->name = std::move(name);
  object->owner = std::move(owner);
  object->name_is_text = name_is_text;
  return Value(Kind::kUndefined, std::move(object));
}

Value make_undefined_hint(Budget* budget, std::string hint) {
  auto object = make_object<UndefinedObject>(budget, hint.size(), 0);
  object->hint = std::move(hint);
  return Value(Kind::kUndefined, std::move(object));
}

Value make_unsafe(Budget* budget, const Value& owner, std::string_view attribute) {
  Value result = make_undefined_hint(
      budget, fmt::format("access to attribute {} of {} object is unsafe.", repr_text(attribute), repr_text(type_name(owner))));
  result.undefined().unsafe = true;
  return result;
}

std::string type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined: return "Undefined";
    case Kind::kNone: return "NoneType";
    case Kind::kBool: return "bool";
    case Kind::kInteger: return "int";
    case Kind::kFloat: return "float";
    case Kind::kString: return value.is_markup() ? "Markup" : "str";
    case Kind::kList: return "list";
    case Kind::kTuple: return "tuple";
    case Kind::kDict: return "dict";
    case Kind::kRange: return "range";
    case Kind::kView:
      switch (value.view().part) {
        case ViewObject::Part::kKeys: return "dict_keys";
        case ViewObject::Part::kValues: return "dict_values";
        case ViewObject::Part::kItems: return "dict_items";
      }
      return "dict_items";
    case Kind::kGenerator: return value.generator().type_name;
    case Kind::kNamespace: return "TemplateNamespace";
    case Kind::kCallable: return value.callable().type_name;
    case Kind::kLoop: return "LoopContext";
  }
  return "object";
}

std::string undefined_message(const UndefinedObject& undefined) {
  if (!undefined.hint.empty()) return undefined.hint;
  if (undefined.owner.is(Kind::kMissing)) return fmt::format("{} is undefined", repr_text(undefined.name));
  std::string owner = undefined.owner.is(Kind::kNone) ? "None" : type_name(undefined.owner) + " object";
  if (undefined.owner.is_markup()) owner = "markupsafe." + owner;
  if (!undefined.name_is_text) return fmt::format("{} has no element {}", owner, undefined.name);
  return fmt::format("{} has no attribute {}", repr_text(owner), repr_text(undefined.name));
}

void raise_undefined(const Value& undefined) {
  const UndefinedObject& object = undefined.undefined();
  raise_python(object.unsafe ? "SecurityError" : "UndefinedError", undefined_message(object));
}

Value* NamespaceObject::find(std::string_view name) {
  for (auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

}  // namespace graft::jinja
