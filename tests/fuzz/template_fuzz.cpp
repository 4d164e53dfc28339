// An arbitrary template, rendered with a fixed conversation: it must end within a second and 512 MiB, whatever it says.
#include <cstddef>
#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include "data/templates/chat_template.h"
#include "kernels/common/error.h"
#include "tests/fuzz/processor_time.h"

namespace {

const nlohmann::ordered_json& variables() {
  static const nlohmann::ordered_json value = nlohmann::ordered_json::parse(R"({
    "messages": [
      {"role": "system", "content": "Be kind."},
      {"role": "user", "content": [{"type": "text", "text": "Zürich 晴れ <b> & 'x'"}]},
      {"role": "assistant", "content": null, "tool_calls": [
        {"type": "function", "function": {"name": "f", "arguments": {"a": [1, 2.5, true, null], "b": {"c": "d"}}}}]},
      {"role": "tool", "name": "f", "content": "{\"x\": 1}"},
      {"role": "assistant", "content": "  Done.\n", "reasoning_content": "think"}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
    "documents": null, "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>", "n": 3, "f": 0.1})");
  return value;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const graft::ProcessorTime limit;
  graft::RenderLimits limits;
  limits.steps = 500'000;  // a tenth of the default: the sanitizers make every step several times slower
  try {
    const graft::ChatTemplate parsed(std::string(reinterpret_cast<const char*>(data), size), "fuzzed");
    const auto rendered = parsed.render(variables(), 1772701623, limits);
    for (const auto& span : rendered.generation) {
      if (span.begin > span.end || span.end > rendered.text.size()) __builtin_trap();
    }
  } catch (const graft::UserError&) {  // the expected way out
  }
  return 0;
}
