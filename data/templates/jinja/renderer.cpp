#include "data/templates/jinja/renderer.h"

#include <algorithm>
#include <cstdlib>

#include <nlohmann/json.hpp>

#include "data/templates/jinja/globals.h"
#include "data/templates/jinja/repr.h"

namespace graft::jinja {
namespace {

constexpr std::ptrdiff_t kStackBytes = 3 << 20;  // of the 8 MiB that threads have

}  // namespace

Renderer::Renderer(const Template& parsed, const nlohmann::ordered_json& variables, int64_t now, const Limits& limits)
    : template_(parsed), variables_(variables), now_(now), budget_(limits) {}

Renderer::~Renderer() {
  for (const auto& space : namespaces_) space->attributes.clear();
}

void Renderer::check_stack() const {
  const char* here = static_cast<const char*>(__builtin_frame_address(0));
  if (std::abs(stack_base_ - here) > kStackBytes) throw BoundExceeded{"recursion too deep for the stack"};
}

std::string Renderer::text_of(const Value& value) { return to_text(budget_, value); }

RenderedText Renderer::run() {
  stack_base_ = static_cast<const char*>(__builtin_frame_address(0));
  Activation root;
  root.slots.resize(static_cast<size_t>(template_.root.num_slots));
  activation_ = &root;
  RenderedText result;
  root_output_ = &result.text;
  enter(template_.root.loads);
  execute(template_.root.body, result.text);
  for (TextSpan& span : generation_) span = {std::min(span.begin, result.text.size()), std::min(span.end, result.text.size())};
  result.generation = std::move(generation_);
  return result;
}

Value Renderer::resolve(const std::string& name) {
  for (const auto& [known, value] : resolved_) {
    if (known == name) return value;
  }
  const auto found = variables_.find(name);
  Value value = found != variables_.end() ? from_json(&budget_, *found) : find_global(*this, name);
  if (!value.is(Kind::kMissing)) resolved_.emplace_back(name, value);
  return value;
}

}  // namespace graft::jinja
