// map, select, reject, selectattr, rejectattr: generators, evaluated as they are read.
#include <functional>

#include "data/templates/jinja/arguments.h"
#include "data/templates/jinja/filters.h"
#include "data/templates/jinja/operators.h"

namespace graft::jinja {
namespace {

// A generator over subject; as in jinja, a false subject (None, empty, undefined) gives nothing, and errors come when it is read.
Value lazily(Renderer& renderer, const Value& subject, std::function<bool(Value&)> keep) {
  return make_generator(
      &renderer.budget(),
      [&renderer, subject, keep = std::move(keep), source = Next(), started = false](Value& out) mutable {
        if (!started) {
          started = true;
          if (truth(subject)) source = iterate(renderer.budget(), subject);
        }
        while (source && source(out)) {
          if (keep(out)) return true;
        }
        return false;
      },
      subject.depth() + 1);
}

[[noreturn]] void argument_error(const std::string& message) { raise_python("FilterArgumentError", message); }

Value map(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  if (arguments.positional.empty()) {
    Value path, otherwise = Value::none();
    for (const auto& [name, value] : arguments.keywords) {
      if (name == "attribute") {
        path = value;
      } else if (name == "default") {
        otherwise = value;
      } else {
        argument_error("Unexpected keyword argument '" + name + "'");
      }
    }
    if (path.is(Kind::kMissing)) argument_error("map requires a filter argument");
    return lazily(renderer, subject, [&renderer, path, otherwise](Value& item) {
      item = get_path(renderer, item, path, otherwise);
      return true;
    });
  }
  const std::string name = renderer.text_of(arguments.positional[0]);
  CallArguments rest = arguments;
  rest.positional.erase(rest.positional.begin());
  return lazily(renderer, subject, [&renderer, name, rest](Value& item) {
    CallArguments copy = rest;
    item = renderer.apply_filter(name, item, copy);
    return true;
  });
}

Value select(Renderer& renderer, const Value& subject, CallArguments& arguments, bool wanted, bool by_attribute) {
  const size_t skipped = by_attribute ? 1 : 0;
  if (arguments.positional.size() < skipped) argument_error("Missing parameter for attribute name");
  const Value path = by_attribute ? arguments.positional[0] : Value::none();
  if (arguments.positional.size() == skipped) {
    return lazily(renderer, subject, [&renderer, path, wanted](Value& item) { return truth(get_path(renderer, item, path)) == wanted; });
  }
  const std::string test = renderer.text_of(arguments.positional[skipped]);
  CallArguments rest = arguments;
  rest.positional.erase(rest.positional.begin(), rest.positional.begin() + static_cast<std::ptrdiff_t>(skipped) + 1);
  return lazily(renderer, subject, [&renderer, path, test, rest, wanted](Value& item) {
    CallArguments copy = rest;
    return renderer.apply_test(test, get_path(renderer, item, path), copy) == wanted;
  });
}

template <bool kWanted, bool kByAttribute>
Value select_filter(Renderer& renderer, const Value& subject, CallArguments& arguments) {
  return select(renderer, subject, arguments, kWanted, kByAttribute);
}

}  // namespace

const FilterTable& selection_filters() {
  static const FilterTable table = {{"map", map},
                                    {"select", select_filter<true, false>},
                                    {"reject", select_filter<false, false>},
                                    {"selectattr", select_filter<true, true>},
                                    {"rejectattr", select_filter<false, true>}};
  return table;
}

}  // namespace graft::jinja
