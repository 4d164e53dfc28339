#include "data/templates/jinja/loop.h"

#include <algorithm>

#include "data/templates/jinja/operators.h"

namespace graft::jinja {

LoopObject& Value::loop() const { return *static_cast<LoopObject*>(object_.get()); }

bool LoopObject::advance(Value& out) {
  Value next;
  if (!after.is(Kind::kMissing)) {
    next = std::move(after);
    after = Value::missing();
  } else if (!source || !source(next)) {
    return false;
  }
  ++index0;
  before = std::move(current);
  current = next;
  depth = std::max({depth, current.depth() + 1, before.depth() + 1});
  out = std::move(next);
  return true;
}

const Value* LoopObject::peek() {
  if (after.is(Kind::kMissing)) {
    Value next;
    if (!source || !source(next)) return nullptr;
    after = std::move(next);
  }
  return &after;
}

int64_t LoopObject::size(Budget& budget) {
  if (!known_size) {  // a generator: read it to its end and go on from what was read
    std::vector<Value> rest;
    for (Value item; source && source(item);) rest.push_back(std::move(item));
    known_size = static_cast<int64_t>(rest.size()) + index0 + 1 + !after.is(Kind::kMissing);
    source = iterate(budget, make_list(&budget, std::move(rest)));
  }
  return *known_size;
}

Value make_loop(Budget& budget, const Value& iterable, Next source) {
  auto loop = std::make_shared<LoopObject>();
  loop->depth = iterable.depth() + 1;
  budget.check_nesting(loop->depth);
  loop->charge = Charge(&budget, sizeof(LoopObject) + 64);
  loop->source = std::move(source);
  return Value(Kind::kLoop, std::move(loop));
}

namespace {

Value cycle_method(Budget& budget, const Value& loop) {
  return make_callable(
      &budget, "cycle",
      [loop](Renderer&, CallArguments& arguments) {
        if (arguments.positional.empty()) raise_python("TypeError", "no items for cycling given");
        return arguments.positional[static_cast<size_t>(loop.loop().index0) % arguments.positional.size()];
      },
      loop.depth());
}

}  // namespace

std::optional<Value> loop_attribute(Budget& budget, const Value& value, std::string_view name) {
  LoopObject& loop = value.loop();
  if (name == "index0") return Value::integer(loop.index0);
  if (name == "index") return Value::integer(loop.index0 + 1);
  if (name == "first") return Value::boolean(loop.index0 == 0);
  if (name == "last") return Value::boolean(loop.peek() == nullptr);
  if (name == "length") return Value::integer(loop.size(budget));
  if (name == "revindex") return Value::integer(loop.size(budget) - loop.index0);
  if (name == "revindex0") return Value::integer(loop.size(budget) - loop.index0 - 1);
  if (name == "depth") return Value::integer(1);
  if (name == "depth0") return Value::integer(0);
  if (name == "cycle") return cycle_method(budget, value);
  if (name == "changed") raise_python("TemplateRuntimeError", "loop.changed is not supported");
  if (name == "previtem") return loop.index0 == 0 ? make_undefined_hint(&budget, "there is no previous item") : loop.before;
  if (name == "nextitem") {
    const Value* next = loop.peek();
    return next ? *next : make_undefined_hint(&budget, "there is no next item");
  }
  return std::nullopt;
}

}  // namespace graft::jinja
