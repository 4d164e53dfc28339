#include "data/templates/jinja/renderer.h"

#include <pthread.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "data/templates/jinja/globals.h"
#include "data/templates/jinja/python_text.h"
#include "data/templates/jinja/repr.h"

namespace graft::jinja {
namespace {

// The lowest address this thread's stack may reach while rendering: a quarter of it stays free.
const char* stack_floor() {
  thread_local const char* const floor = [] {
    pthread_attr_t attributes;
    void* lowest = nullptr;
    size_t size = 0;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0) throw BoundExceeded{"the size of the thread's stack is unknown"};
    pthread_attr_getstack(&attributes, &lowest, &size);
    pthread_attr_destroy(&attributes);
    return static_cast<const char*>(lowest) + size / 4;
  }();
  return floor;
}

}  // namespace

Renderer::Renderer(const Template& parsed, const nlohmann::ordered_json& variables, int64_t now, const Limits& limits)
    : template_(parsed), variables_(variables), now_(now), budget_(limits) {}

Renderer::~Renderer() {
  for (const auto& space : namespaces_) space->attributes.clear();
}

void Renderer::check_stack() const {
  if (static_cast<const char*>(__builtin_frame_address(0)) < stack_floor_) throw BoundExceeded{"recursion too deep for the stack"};
}

std::string Renderer::text_of(const Value& value) { return to_text(budget_, value); }

RenderedText Renderer::run() {
  stack_floor_ = stack_floor();
  Activation root;
  root.slots.resize(static_cast<size_t>(template_.root.num_slots));
  activation_ = &root;
  RenderedText result;
  root_output_ = &result.text;
  enter(template_.root.loads);
  execute(template_.root.body, result.text);
  if (!generation_.empty()) {
    const std::vector<size_t> offsets = code_point_offsets(result.text);
    const auto byte_of = [&](size_t code_point) { return offsets[std::min(code_point, offsets.size() - 1)]; };
    for (const TextSpan& span : generation_) result.generation.push_back({byte_of(span.begin), byte_of(span.end)});
  }
  return result;
}

Value Renderer::resolve(const std::string& name) {
  budget_.pay(1 + static_cast<int64_t>(resolved_.size()) / 8);
  for (const auto& [known, value] : resolved_) {
    if (known == name) return value;
  }
  const auto found = variables_.find(name);
  Value value = found != variables_.end() ? from_json(&budget_, *found) : find_global(*this, name);
  if (!value.is(Kind::kMissing)) resolved_.emplace_back(name, value);
  return value;
}

}  // namespace graft::jinja
