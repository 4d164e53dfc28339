// The `loop` variable of a for statement: Jinja's LoopContext. It reads at most one element ahead, unless length is asked of a generator.
#pragma once
#include <optional>

#include "data/templates/jinja/value.h"

namespace graft::jinja {

struct LoopObject : Object {
  bool advance(Value& out);  // the next element; false at the end
  const Value* peek();       // null at the end
  int64_t size(Budget& budget);

  Next source;
  std::optional<int64_t> known_size;
  int64_t index0 = -1;
  Value before, current, after;  // missing: there is none
};

Value make_loop(Budget& budget, const Value& iterable, Next source);
// loop.index, .last, .previtem, ...; nullopt when there is no such attribute.
std::optional<Value> loop_attribute(Budget& budget, const Value& loop, std::string_view name);

}  // namespace graft::jinja
