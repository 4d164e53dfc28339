#include "data/templates/jinja/globals.h"

#include "data/templates/jinja/arguments.h"
#include "data/templates/jinja/methods.h"
#include "data/templates/jinja/operators.h"
#include "data/templates/jinja/repr.h"

namespace graft::jinja {
namespace {

constexpr int64_t kMaxRange = 100000;  // of jinja2's sandbox

int64_t range_bound(const Value& value) {
  if (!value.is_integral()) raise_python("TypeError", "'" + type_name(value) + "' object cannot be interpreted as an integer");
  const Integer bound = value.as_integer();
  if (bound != Integer(static_cast<int64_t>(bound))) raise_python("OverflowError", "Python int too large to convert to C ssize_t");
  return static_cast<int64_t>(bound);
}

Value range(Renderer& renderer, CallArguments& arguments) {
  const auto& given = arguments.positional;
  if (!arguments.keywords.empty()) raise_python("TypeError", "range() takes no keyword arguments");
  if (given.empty()) raise_python("TypeError", "range expected at least 1 argument, got 0");
  if (given.size() > 3) raise_python("TypeError", fmt::format("range expected at most 3 arguments, got {}", given.size()));
  const int64_t start = given.size() > 1 ? range_bound(given[0]) : 0;
  const int64_t stop = range_bound(given[given.size() > 1 ? 1 : 0]);
  const int64_t step = given.size() > 2 ? range_bound(given[2]) : 1;
  if (step == 0) raise_python("ValueError", "range() arg 3 must not be zero");
  Value result = make_range(&renderer.budget(), start, stop, step);
  if (result.range().size() > kMaxRange) {
    raise_python("OverflowError", fmt::format("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).", kMaxRange));
  }
  return result;
}

// dict(mapping or pairs, **keywords).
Value make_dict_of(Renderer& renderer, CallArguments& arguments, const char* function) {
  if (arguments.positional.size() > 1) {
    raise_python("TypeError", fmt::format("{} expected at most 1 argument, got {}", function, arguments.positional.size()));
  }
  std::vector<std::pair<Value, Value>> entries;
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.is(Kind::kDict)) {
      entries = source.dict().entries;
    } else {
      const Next next = iterate(renderer.budget(), source);
      for (Value item; next(item);) {
        if (!is_iterable(item)) raise_python("TypeError", "cannot convert dictionary update sequence element to a sequence");
        std::vector<Value> pair = to_vector(renderer.budget(), item);
        if (pair.size() != 2) {
          raise_python("ValueError", fmt::format("dictionary update sequence element #{} has length {}; 2 is required", entries.size(),
                                                 pair.size()));
        }
        entries.emplace_back(std::move(pair[0]), std::move(pair[1]));
      }
    }
  }
  for (auto& [name, value] : arguments.keywords) entries.emplace_back(renderer.string(name), value);
  return make_dict(&renderer.budget(), std::move(entries));
}

Value dict(Renderer& renderer, CallArguments& arguments) { return make_dict_of(renderer, arguments, "dict"); }

Value make_namespace_of(Renderer& renderer, CallArguments& arguments) {
  const Value dict = make_dict_of(renderer, arguments, "dict");
  std::vector<std::pair<std::string, Value>> attributes;
  for (const auto& [key, value] : dict.dict().entries) {
    if (!key.is(Kind::kString)) raise_python("TypeError", "namespace attributes must be named by text");
    check_namespace_name(key.text());
    attributes.emplace_back(key.text(), value);
  }
  return renderer.make_namespace(std::move(attributes));
}

Value raise_exception(Renderer& renderer, CallArguments& arguments) {
  const Parameters parameters("raise_exception", arguments, {"message"});
  throw RaisedException{renderer.text_of(parameters.need(0))};
}

Value strftime_now(Renderer& renderer, CallArguments& arguments) {
  const Parameters parameters("strftime_now", arguments, {"format"});
  return renderer.string(format_time(renderer, parameters.need_text(0), renderer.now()));
}

Value unsupported(Renderer&, CallArguments&) {
  raise_python("TemplateRuntimeError", "lipsum, cycler and joiner are not supported by graft, because no chat template was seen to use them");
}

}  // namespace

void check_namespace_name(std::string_view name) {
  if (name.substr(0, 1) != "_") return;
  raise_python("SecurityError", "Chat templates cannot store underscore-prefixed attributes on a namespace, but got " + repr_text(name) +
                                    ". Please rename the attribute.");
}

Value Renderer::make_namespace(std::vector<std::pair<std::string, Value>> attributes) {
  budget_.pay(static_cast<int64_t>(attributes.size()) + 1);
  budget_.allocate(128 + attributes.size() * sizeof(Value));  // until the end: namespaces may refer to each other
  auto space = std::make_shared<NamespaceObject>();
  space->attributes = std::move(attributes);
  namespaces_.push_back(space);
  return Value(Kind::kNamespace, space);
}

Value find_global(Renderer& renderer, std::string_view name) {
  struct Global {
    std::string_view name;
    Value (*call)(Renderer&, CallArguments&);
  };
  static constexpr Global kGlobals[] = {{"range", range},
                                        {"dict", dict},
                                        {"namespace", make_namespace_of},
                                        {"raise_exception", raise_exception},
                                        {"strftime_now", strftime_now},
                                        {"lipsum", unsupported},
                                        {"cycler", unsupported},
                                        {"joiner", unsupported}};
  for (const Global& global : kGlobals) {
    if (global.name == name) return make_callable(&renderer.budget(), std::string(name), global.call);
  }
  return Value::missing();
}

}  // namespace graft::jinja
