// gemma2: every second layer slides; scores and logits are bounded by softcaps.
#include <algorithm>
#include <cmath>

#include "kernels/common/error.h"
#include "trainer/models/families/gemma.h"

namespace graft {
namespace gemma2 {

constexpr int64_t kPeriod = 2;

double softcap_of(ConfigReader& reader, const char* key, double otherwise) { return reader.contains(key) ? reader.float_or(key, 0) : otherwise; }

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "gemma2");
  auto spec = llama_like_spec(reader, "gemma2", gemma_defaults());
  const bool biases = reader.bool_or("attention_bias", false);
  const double scale = 1 / std::sqrt(reader.float_or("query_pre_attn_scalar", 256));
  const double softcap = softcap_of(reader, "attn_logit_softcapping", 50);
  spec.logit_softcap = softcap_of(reader, "final_logit_softcapping", 30);
  for (auto& layer : spec.layers) {
    layer.attention().input_bias = layer.attention().output_bias = biases;
    layer.attention().scale = scale;
    layer.attention().softcap = softcap;
  }
  read_windows(reader, spec, reader.contains("sliding_window") ? reader.int_or("sliding_window", 0) : 4096, [](size_t index) { return index % kPeriod == 0; });
  reader.expect_false({"use_bidirectional_attention"});
  reader.ignore({"cache_implementation", "sliding_window_size"});
  reader.finish();
  set_gemma_layers(spec);
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "gemma2");
  const GgufReader reader(file);
  const int64_t window = reader.int_or("attention.sliding_window", 4096), period = std::max<int64_t>(1, reader.int_or("attention.sliding_window_pattern", kPeriod));
  spec.logit_softcap = reader.float_or("final_logit_softcapping", 30);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    auto& attention = spec.layers[i].attention();
    attention.softcap = reader.float_or("attn_logit_softcapping", 50);
    if (static_cast<int64_t>(i) % period < period - 1) attention.window = window;
    // The 27B model is the one whose scale is not that of its head size; llama.cpp tells it by its layers.
    if (spec.layers.size() == 46) attention.scale = 1 / std::sqrt(static_cast<double>(spec.hidden_size / attention.num_heads));
  }
  set_gemma_layers(spec);
  return spec;
}

void add_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  if (spec.layers[0].attention().softcap == 0 || spec.logit_softcap == 0) {
    fail("models", "expected softcaps of scores and logits, as llama.cpp computes gemma2, got a model without — export safetensors or peft");
  }
  add_gemma_gguf(spec, keys, kPeriod);
}

}  // namespace gemma2

Family gemma2_family() {
  using namespace gemma2;
  return {"gemma2", "Gemma2ForCausalLM", "gemma2", from_config, from_gguf, gemma_weights, add_gemma_config, add_gguf};
}

}  // namespace graft
