// Attributes that Python's own types have, and what the sandbox makes of them.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "data/templates/jinja/renderer.h"

namespace graft::jinja {

using Method = Value (*)(Renderer& renderer, const Value& self, CallArguments& arguments);
using MethodTable = std::unordered_map<std::string_view, Method>;

// A method, a namespace's or loop's attribute, or the unsafe-undefined that the sandbox gives for what would change the value.
// nullopt: Python's getattr fails. TemplateRuntimeError: Python has it, graft does not.
std::optional<Value> python_attribute(Renderer& renderer, const Value& owner, std::string_view name);

const MethodTable& string_methods();
const MethodTable& string_predicates();  // the is...() methods
const MethodTable& dict_methods();
const MethodTable& list_methods();  // of lists and tuples

// str.format: '{}', '{0}', '{name}', '{{', '!r' and '!s'; other forms are errors.
Value format_method(Renderer& renderer, const Value& self, CallArguments& arguments);

}  // namespace graft::jinja
