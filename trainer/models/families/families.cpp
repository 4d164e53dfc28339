// The families that graft knows. A family that is not here is an error: an architecture is never guessed from weights.
#include <fmt/ranges.h>

#include "kernels/common/error.h"
#include "trainer/models/families/family.h"

namespace graft {

const std::vector<Family>& families() {
  static const std::vector<Family> table = {
      llama_family(), mistral_family(), ministral3_family(), qwen2_family(), qwen3_family(), smollm3_family(), phi3_family(), glm_family(), glm4_family(),
      chatglm_family(), hunyuan_v1_dense_family(), ernie4_5_family(), pangu_embedded_family(), olmo2_family(), gemma2_family(), gemma3_text_family(),
      bloom_family(), gpt2_family(), mixtral_family(), qwen2_moe_family(), qwen3_moe_family(), glm4_moe_family(), hunyuan_v1_moe_family(), ernie4_5_moe_family(),
      gpt_oss_family(), deepseek_v2_family(), deepseek_v3_family(), kimi_k2_family(), glm4_moe_lite_family(), deepseek_v32_family(), glm_moe_dsa_family(), qwen3_next_family(),
      qwen3_5_text_family(), qwen3_5_moe_text_family(), kimi_linear_family(),
  };
  return table;
}

namespace {

[[noreturn]] void unknown(const std::string& name, std::string Family::*column, const char* where) {
  std::vector<std::string> known;
  for (const auto& family : families()) {
    if (known.empty() || known.back() != family.*column) known.push_back(family.*column);
  }
  fail("models", "expected {} to be one of {}, got {} — this family is not supported; nothing is guessed", where, fmt::join(known, ", "), name);
}

}  // namespace

const Family& family_of_model_type(const std::string& model_type) {
  for (const auto& family : families()) {
    if (family.model_type == model_type) return family;
  }
  unknown(model_type, &Family::model_type, "model_type in config.json");
}

// Several families share an architecture: the marker decides, else the first one without.
const Family& family_of_gguf(const GgufFile& file) {
  const auto architecture = file.need_string("general.architecture");
  const Family* unmarked = nullptr;
  for (const auto& family : families()) {
    if (family.gguf_architecture != architecture) continue;
    if (!family.gguf_marker.empty() && file.find(family.gguf_marker)) return family;
    if (family.gguf_marker.empty() && !unmarked) unmarked = &family;
  }
  if (unmarked) return *unmarked;
  unknown(architecture, &Family::gguf_architecture, "general.architecture of the GGUF file");
}

}  // namespace graft
