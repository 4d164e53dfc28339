// The values a template sees: Python's None, bool, int, float, str, list, tuple, dict and a few things that Jinja adds. All but namespaces,
// generators and loops are immutable; nothing refers back to the caller's data.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/templates/jinja/budget.h"

namespace graft::jinja {

__extension__ typedef __int128 Integer;  // Python's int is unbounded; beyond 127 bits is an error here

enum class Kind {
  kMissing,  // a variable that was never set; never a value of an expression
  kUndefined,
  kNone,
  kBool,
  kInteger,
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kRange,
  kView,       // dict.keys(), .values(), .items()
  kGenerator,  // what filters such as map return: can be iterated once
  kNamespace,
  kCallable,
  kLoop
};

struct Object {
  virtual ~Object() = default;
  int depth = 1;  // of nesting; bounds every recursion over values, their destruction included
  Charge charge;
};

class Value {
 public:
  Value() = default;
  static Value missing() { return {}; }
  static Value none() { return Value(Kind::kNone); }
  static Value boolean(bool value);
  static Value integer(Integer value);
  static Value floating(double value);
  Value(Kind kind, std::shared_ptr<Object> object) : kind_(kind), object_(std::move(object)) {}

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_number() const { return kind_ == Kind::kBool || kind_ == Kind::kInteger || kind_ == Kind::kFloat; }
  bool is_integral() const { return kind_ == Kind::kBool || kind_ == Kind::kInteger; }  // Python's bool is an int
  bool as_bool() const { return integer_ != 0; }
  Integer as_integer() const { return integer_; }  // of bool and int
  double as_float() const { return kind_ == Kind::kFloat ? float_ : static_cast<double>(integer_); }
  int depth() const { return object_ ? object_->depth : 0; }
  const Object* identity() const { return object_.get(); }
  const std::shared_ptr<Object>& object() const { return object_; }

  const std::string& text() const;               // kString
  bool is_markup() const;                        // kString that `safe` marked
  const std::vector<Value>& items() const;       // kList, kTuple
  const struct DictObject& dict() const;
  struct UndefinedObject& undefined() const;
  struct NamespaceObject& name_space() const;
  struct CallableObject& callable() const;
  struct GeneratorObject& generator() const;
  struct LoopObject& loop() const;
  const struct RangeObject& range() const;
  const struct ViewObject& view() const;

 private:
  explicit Value(Kind kind) : kind_(kind) {}
  Kind kind_ = Kind::kMissing;
  union {
    Integer integer_ = 0;
    double float_;
  };
  std::shared_ptr<Object> object_;
};

struct StringObject : Object {
  std::string text;        // UTF-8
  int64_t length = 0;      // in code points
  bool markup = false;
};

struct ListObject : Object {
  std::vector<Value> items;
};

// Keeps insertion order. Python's keys: 1, 1.0 and True are the same key.
struct DictObject : Object {
  std::vector<std::pair<Value, Value>> entries;
  std::unordered_map<std::string_view, size_t> text_index;  // into entries, of string keys, once there are many
  const Value* find(Budget& budget, const Value& key) const;   // null when absent; TypeError for a key that cannot be hashed
  const Value* find(std::string_view key) const;
};

struct RangeObject : Object {
  int64_t start = 0, stop = 0, step = 1;
  int64_t size() const;
};

struct ViewObject : Object {
  enum class Part { kKeys, kValues, kItems };
  Value dict;
  Part part = Part::kKeys;
};

struct UndefinedObject : Object {
  std::string name;        // what was looked up, as it is shown
  Value owner;             // where; missing for a variable
  std::string hint;        // replaces the message made of name and owner
  bool name_is_text = true;
  bool unsafe = false;     // use raises SecurityError
};

struct NamespaceObject : Object {
  std::vector<std::pair<std::string, Value>> attributes;
  Value* find(std::string_view name);
};

using Next = std::function<bool(Value&)>;  // false at the end

struct GeneratorObject : Object {
  Next next;
  std::string type_name = "generator";
};

class Renderer;
struct CallArguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keywords;
};

struct CallableObject : Object {
  std::string name;
  std::string type_name = "function";
  std::function<Value(Renderer&, CallArguments&)> call;
};

// Makes a value that pays for itself. budget may be null: a constant of the template.
Value make_string(Budget* budget, std::string text, bool markup = false);
Value make_list(Budget* budget, std::vector<Value> items);
Value make_tuple(Budget* budget, std::vector<Value> items);
Value make_dict(Budget* budget, std::vector<std::pair<Value, Value>> entries);  // later duplicates win, at the first one's place
Value make_range(Budget* budget, int64_t start, int64_t stop, int64_t step);
Value make_view(Budget* budget, Value dict, ViewObject::Part part);
Value make_generator(Budget* budget, Next next, int depth, std::string type_name = "generator");
Value make_callable(Budget* budget, std::string name, std::function<Value(Renderer&, CallArguments&)> call, int depth = 1);
Value make_undefined(Budget* budget, std::string name, Value owner = Value::missing(), bool name_is_text = true);
Value make_undefined_hint(Budget* budget, std::string hint);
Value make_unsafe(Budget* budget, const Value& owner, std::string_view attribute);

// JSON to values. Deeper than the limit of nesting is an error.
Value from_json(Budget* budget, const nlohmann::ordered_json& json, int depth = 0);

std::string type_name(const Value& value);         // Python's: "str", "NoneType", "dict_items"
std::string undefined_message(const UndefinedObject& undefined);
[[noreturn]] void raise_undefined(const Value& undefined);   // UndefinedError, or SecurityError
int64_t length_in_code_points(const Value& string);

}  // namespace graft::jinja
