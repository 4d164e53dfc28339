// A decoder, layer by layer, as plain data (the axes of DESIGN section 3). A family fills it in; the blocks read it. No Torch here.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace graft {

struct NormSpec {
  double epsilon = 1e-5;   // RMS norm: x * rsqrt(mean(x^2) + epsilon) * weight
};

// Angles of rotary position embedding: position * theta^(-2i/rotary_size), scaled (transformers' modeling_rope_utils.py).
struct RopeSpec {
  enum class Scaling { kNone, kLinear, kLlama3 };
  int64_t rotary_size = 0;   // leading elements of a head that turn; half-split pairs (i, i + rotary_size/2)
  double theta = 10000;
  Scaling scaling = Scaling::kNone;
  double factor = 1;                              // linear, llama3
  double low_frequency_factor = 1, high_frequency_factor = 4;   // llama3
  double original_max_positions = 8192;           // llama3
  std::vector<float> frequency_divisors;          // one a pair, as GGUF's rope_freqs.weight holds llama3 scaling; empty: none
};

struct AttentionSpec {
  int64_t num_heads = 0, num_kv_heads = 0, head_size = 0;
  bool input_bias = false;     // on query, key and value
  bool output_bias = false;
  std::optional<NormSpec> head_norm;   // RMS norm of each query and key head, before the rotation
  double scale = 0;                    // of the scores
  int64_t rope = 0;                    // index into DecoderSpec::ropes
};

struct MlpSpec {   // down(silu(gate(x)) * up(x))
  int64_t width = 0;
  bool bias = false;
};

struct LayerSpec {
  NormSpec mixer_norm, channel_norm;
  AttentionSpec attention;
  MlpSpec mlp;
};

struct DecoderSpec {
  std::string family;             // model_type: "llama", "qwen2", "qwen3"
  int64_t vocab_size = 0, hidden_size = 0, max_positions = 0;
  std::vector<RopeSpec> ropes;
  std::vector<LayerSpec> layers;
  NormSpec final_norm;
  bool tied_head = false;         // the head is the embedding matrix
};

}  // namespace graft
