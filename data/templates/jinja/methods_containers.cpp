// Methods of dict, list and tuple: those that only read.
#include "data/templates/jinja/arguments.h"
#include "data/templates/jinja/methods.h"
#include "data/templates/jinja/operators.h"
#include "data/templates/jinja/repr.h"

namespace graft::jinja {
namespace {

template <ViewObject::Part kPart>
Value view(Renderer& renderer, const Value& self, CallArguments& arguments) {
  Parameters("dict view", arguments, {});
  return make_view(&renderer.budget(), self, kPart);
}

Value get(Renderer& renderer, const Value& self, CallArguments& arguments) {
  if (!arguments.keywords.empty()) raise_python("TypeError", "dict.get() takes no keyword arguments");
  const Parameters parameters("get", arguments, {"key", "default"});
  const Value* found = self.dict().find(renderer.budget(), parameters.need(0));
  return found ? *found : parameters.get(1, Value::none());
}

Value copy(Renderer&, const Value& self, CallArguments& arguments) {
  Parameters("copy", arguments, {});
  return self;  // immutable here
}

Value count_elements(Renderer& renderer, const Value& self, CallArguments& arguments) {
  const Parameters parameters("count", arguments, {"value"});
  int64_t found = 0;
  for (const Value& item : self.items()) found += equal(&renderer.budget(), item, parameters.need(0));
  return Value::integer(found);
}

Value index(Renderer& renderer, const Value& self, CallArguments& arguments) {
  const Parameters parameters("index", arguments, {"value", "start", "stop"});
  const int64_t size = static_cast<int64_t>(self.items().size());
  const auto bound = [&](size_t i, int64_t otherwise) {
    const int64_t value = parameters.integer(i, otherwise);
    return value < 0 ? std::max<int64_t>(0, value + size) : std::min(value, size);
  };
  for (int64_t i = bound(1, 0); i < bound(2, size); ++i) {
    if (equal(&renderer.budget(), self.items()[static_cast<size_t>(i)], parameters.need(0))) return Value::integer(i);
  }
  std::string shown;
  append_repr(renderer.budget(), parameters.need(0), shown);
  raise_python("ValueError", self.is(Kind::kList) ? shown + " is not in list" : "tuple.index(x): x not in tuple");
}

}  // namespace

const MethodTable& dict_methods() {
  static const MethodTable table = {{"items", view<ViewObject::Part::kItems>},
                                    {"keys", view<ViewObject::Part::kKeys>},
                                    {"values", view<ViewObject::Part::kValues>},
                                    {"get", get},
                                    {"copy", copy}};
  return table;
}

const MethodTable& list_methods() {
  static const MethodTable table = {{"count", count_elements}, {"index", index}, {"copy", copy}};
  return table;
}

}  // namespace graft::jinja
