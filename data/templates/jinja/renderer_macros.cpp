#include <algorithm>

#include "data/templates/jinja/renderer.h"
#include "data/templates/jinja/repr.h"

namespace graft::jinja {

Value Renderer::make_macro(const Function& function) {
  activation_->captured = true;
  Activation* outer = activation_;
  Value macro = make_callable(&budget_, function.name, [&function, outer](Renderer& renderer, CallArguments& arguments) {
    return renderer.call_macro(function, *outer, arguments);
  });
  macro.callable().type_name = "Macro";
  return macro;
}

Value Renderer::call_macro(const Function& function, Activation& outer, CallArguments& arguments) {
  check_stack();
  if (call_depth_ >= budget_.limits().call_depth) raise_python("RecursionError", "maximum recursion depth exceeded");
  budget_.pay(1 + function.num_slots / 4);
  auto own = std::make_unique<Activation>();
  own->outer = &outer;
  own->slots.resize(static_cast<size_t>(function.num_slots));

  Activation* const previous = activation_;
  const int line = line_;
  struct Return {  // also when an error passes through
    Renderer& renderer;
    Activation* previous;
    std::unique_ptr<Activation>& own;
    ~Return() {
      renderer.activation_ = previous;
      --renderer.call_depth_;
      if (own->captured) renderer.captured_.push_back(std::move(own));
    }
  } leave{*this, previous, own};
  activation_ = own.get();
  ++call_depth_;

  enter(function.loads);
  bind_parameters(function, arguments);
  std::string text;
  execute(function.body, text);
  if (own->captured) budget_.allocate(sizeof(Activation) + own->slots.size() * sizeof(Value));
  line_ = line;
  return string(std::move(text));
}

namespace {

std::optional<Value> take_keyword(CallArguments& arguments, const std::string& name) {
  const auto found = std::find_if(arguments.keywords.begin(), arguments.keywords.end(), [&](const auto& k) { return k.first == name; });
  if (found == arguments.keywords.end()) return std::nullopt;
  Value value = std::move(found->second);
  arguments.keywords.erase(found);
  return value;
}

}  // namespace

void Renderer::bind_parameters(const Function& function, CallArguments& arguments) {
  const auto shown_name = [&] { return function.name.empty() ? "None" : repr_text(function.name); };
  const size_t count = function.parameters.size();
  const auto place = [&](int index) -> Value& { return activation_->slots[static_cast<size_t>(index)]; };
  for (size_t i = 0; i < count; ++i) {
    Value& parameter = place(function.parameter_slots[i]);
    if (i < arguments.positional.size()) {
      parameter = arguments.positional[i];
    } else if (auto value = take_keyword(arguments, function.parameters[i])) {
      parameter = std::move(*value);
    }
  }
  if (function.caller_slot >= 0) {
    auto caller = take_keyword(arguments, "caller");
    place(function.caller_slot) = caller && !caller->is(Kind::kNone) ? *caller : make_undefined_hint(&budget_, "No caller defined");
  }
  if (function.kwargs_slot >= 0) {
    std::vector<std::pair<Value, Value>> entries;
    for (auto& [name, value] : arguments.keywords) entries.emplace_back(string(name), std::move(value));
    place(function.kwargs_slot) = make_dict(&budget_, std::move(entries));
  } else if (!arguments.keywords.empty()) {
    for (const auto& [name, value] : arguments.keywords) {
      if (name == "caller") {
        raise_python("TypeError", "macro " + shown_name() +
                                      " was invoked with two values for the special caller argument. This is most likely a bug.");
      }
    }
    raise_python("TypeError", "macro " + shown_name() + " takes no keyword argument " +
                                  repr_text(arguments.keywords[0].first));
  }
  const size_t taken = std::min(count, arguments.positional.size());
  if (function.varargs_slot >= 0) {
    place(function.varargs_slot) =
        make_tuple(&budget_, {arguments.positional.begin() + static_cast<std::ptrdiff_t>(taken), arguments.positional.end()});
  } else if (arguments.positional.size() > count) {
    raise_python("TypeError", fmt::format("macro {} takes not more than {} argument(s)", shown_name(), count));
  }
  const size_t first_default = count - function.defaults.size();
  for (size_t i = 0; i < count; ++i) {
    Value& parameter = place(function.parameter_slots[i]);
    if (!parameter.is(Kind::kMissing)) continue;
    if (i >= first_default) {
      Value value = evaluate(*function.defaults[i - first_default]);
      place(function.parameter_slots[i]) = std::move(value);
    } else {
      parameter = make_undefined_hint(&budget_, "parameter " + repr_text(function.parameters[i]) + " was not provided");
    }
  }
}

}  // namespace graft::jinja
