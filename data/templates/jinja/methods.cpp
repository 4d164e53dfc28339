#include "data/templates/jinja/methods.h"

#include <algorithm>
#include <initializer_list>

#include "data/templates/jinja/loop.h"
#include "data/templates/jinja/operators.h"
#include "data/templates/jinja/repr.h"

namespace graft::jinja {
namespace {

bool one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// What ImmutableSandboxedEnvironment refuses.
bool changes_value(const Value& owner, std::string_view name) {
  if (owner.is(Kind::kDict)) return one_of(name, {"clear", "pop", "popitem", "setdefault", "update"});
  return owner.is(Kind::kList) && one_of(name, {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"});
}

// What Python has and graft has not: an error rather than a silent undefined.
bool is_unsupported(const Value& owner, std::string_view name) {
  switch (owner.kind()) {
    case Kind::kString:
      return one_of(name, {"encode", "expandtabs", "format_map", "isidentifier", "isnumeric", "maketrans", "translate"}) ||
             (owner.is_markup() && one_of(name, {"escape", "striptags", "unescape"}));
    case Kind::kBool:
    case Kind::kInteger:
      return one_of(name, {"as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator", "from_bytes", "imag", "numerator",
                           "real", "to_bytes"});
    case Kind::kFloat: return one_of(name, {"as_integer_ratio", "conjugate", "fromhex", "hex", "imag", "is_integer", "real"});
    case Kind::kRange: return one_of(name, {"count", "index", "start", "step", "stop"});
    case Kind::kDict: return name == "fromkeys";
    case Kind::kCallable: return owner.callable().type_name == "Macro" && one_of(name, {"name", "arguments", "caller"});
    default: return false;
  }
}

std::optional<Method> find_method(const Value& owner, std::string_view name) {
  const auto look = [&](const MethodTable& table) {
    const auto found = table.find(name);
    return found == table.end() ? std::nullopt : std::optional<Method>(found->second);
  };
  switch (owner.kind()) {
    case Kind::kString: {
      const auto method = look(string_methods());
      return method ? method : look(string_predicates());
    }
    case Kind::kDict: return look(dict_methods());
    case Kind::kList:
    case Kind::kTuple:
      if (name == "copy" && owner.is(Kind::kTuple)) return std::nullopt;
      return look(list_methods());
    default: return std::nullopt;
  }
}

}  // namespace

std::optional<Value> python_attribute(Renderer& renderer, const Value& owner, std::string_view name) {
  Budget* budget = &renderer.budget();
  if (owner.is(Kind::kNamespace)) {
    const Value* found = owner.name_space().find(name);
    if (found) return *found;
  }
  if (owner.is(Kind::kLoop)) {
    if (auto attribute = loop_attribute(*budget, owner, name)) return attribute;
  }
  if (const auto method = find_method(owner, name)) {
    Value bound = make_callable(
        budget, std::string(name),
        [method = *method, owner](Renderer& inner, CallArguments& arguments) { return method(inner, owner, arguments); }, owner.depth());
    bound.callable().type_name = owner.is_markup() ? "method" : "builtin_function_or_method";
    return bound;
  }
  if (changes_value(owner, name)) return make_unsafe(budget, owner, name);
  if (name.size() > 4 && name.substr(0, 2) == "__" && name.substr(name.size() - 2) == "__") return make_unsafe(budget, owner, name);
  if (is_unsupported(owner, name)) {
    raise_python("TemplateRuntimeError", fmt::format("{} of {} is not supported by graft, because no chat template was seen to use it",
                                                     repr_text(name), type_name(owner)));
  }
  return std::nullopt;
}

}  // namespace graft::jinja
