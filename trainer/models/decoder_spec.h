// A decoder, layer by layer, as plain data (the axes of DESIGN section 3). A family fills it in; the blocks read it. No Torch here.
#pragma once
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace graft {

struct NormSpec {
  enum class Kind { kRms, kLayer };   // x * rsqrt(mean(x^2) + epsilon) * weight; (x - mean) * rsqrt(variance + epsilon) * weight + bias
  double epsilon = 1e-5;
  Kind kind = Kind::kRms;
};

// Angles of rotary position embedding: position * theta^(-2i/rotary_size), scaled (transformers' modeling_rope_utils.py).
struct RopeSpec {
  enum class Scaling { kNone, kLinear, kLlama3, kYarn, kLongRope };
  int64_t rotary_size = 0;          // leading elements of a head that turn
  bool neighbouring_pairs = false;  // pairs are (2i, 2i + 1) as in GPT-J; else (i, i + rotary_size/2) as in GPT-NeoX
  double theta = 10000;
  Scaling scaling = Scaling::kNone;
  double factor = 1;                              // linear, llama3, yarn
  double low_frequency_factor = 1, high_frequency_factor = 4;   // llama3
  double original_max_positions = 8192;           // llama3, yarn, longrope
  double beta_fast = 32, beta_slow = 1;           // yarn
  bool truncate = true;                           // yarn: the bounds of its ramp are whole numbers
  double attention_factor = 1;                    // yarn, longrope: cosines and sines are multiplied by it
  double mscale = 0, mscale_all_dim = 0;          // yarn, as files say them: attention_factor comes of both, latent attention scales its scores by the second
  std::vector<double> short_factors, long_factors; // longrope, one a pair: rows of up to original_max_positions, longer rows
  std::vector<float> frequency_divisors;          // one a pair, as GGUF's rope_freqs.weight holds llama3 scaling; empty: none
  double query_temperature = 0;                   // beta of Ministral 3: queries * (1 + beta * ln(1 + floor(position / original_max_positions)))
};

struct AttentionSpec {
  enum class HeadNorm { kBeforeRotation, kAfterRotation, kWholeWidth };   // of each head, or of all heads as one row (before the rotation)
  int64_t num_heads = 0, num_kv_heads = 0, head_size = 0;
  bool fused = false;                  // query, key and value are one linear layer
  bool input_bias = false;             // on query, key and value
  bool output_bias = false;
  std::optional<NormSpec> head_norm;   // of queries and keys
  HeadNorm head_norm_place = HeadNorm::kBeforeRotation;
  double scale = 0;                    // of the scores
  std::optional<int64_t> rope = 0;     // index into DecoderSpec::ropes; none: positions do not turn queries and keys
  int64_t window = 0;                  // a token sees the last `window` tokens, itself included; 0: all
  double softcap = 0;                  // of the scores; 0: none
  bool alibi = false;                  // score += slope of the head * key position
  bool sinks = false;                  // each head has a further score, which takes part in the softmax and adds nothing
  bool output_gate = false;            // the query's rows are, for each head, [query | gate]: what a head gives is multiplied by sigmoid(gate)
};

// DeepSeek sparse attention (DeepSeek-V3.2): where a query has more keys before it than `keys_per_query`, it sees only that many, which an indexer scores best.
struct IndexerSpec {
  int64_t num_heads = 0, head_size = 0;   // rotary elements come first in a head, as many as in the attention's, with the same angles
  int64_t keys_per_query = 0;             // index_topk
  bool neighbouring_pairs = false;        // rotary pairs, as in RopeSpec, which may differ from the attention's
  double norm_epsilon = 1e-6;             // of the layer norm of its key
  bool shared = false;                    // the layer has no indexer of its own and takes the keys that the layer before it saw
};

// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values of all heads come from one normed latent of a token, and one rotary key serves all
// heads. A head's query and key are [plain | rotary]; its value has a size of its own.
struct LatentAttentionSpec {
  int64_t num_heads = 0;
  int64_t plain_size = 0, rotary_size = 0, value_size = 0;   // qk_nope_head_dim, qk_rope_head_dim, v_head_dim
  int64_t query_rank = 0;              // of the queries' latent (q_lora_rank); 0: queries come from the input
  int64_t key_value_rank = 0;          // of the keys' and values' latent (kv_lora_rank)
  double latent_epsilon = 1e-6;        // of the latents' RMS norms
  bool bias = false;                   // on what makes the latents (not on queries from the input), and on the output
  double scale = 0;                    // of the scores
  std::optional<int64_t> rope = 0;     // index into DecoderSpec::ropes; none: positions do not turn the rotary part
  std::optional<IndexerSpec> indexer;  // none: queries see all keys

  int64_t query_size() const { return plain_size + rotary_size; }   // of one head
  int64_t key_value_size() const { return plain_size + value_size; }
  // The attention operator has one even size for query, key and value: zeros fill the shorter ones.
  int64_t padded_size() const { return (std::max(query_size(), value_size) + 1) / 2 * 2; }
};

// Attention by the gated delta rule, with a state in place of keys and values (kernels/delta_attention/delta_attention.h).
struct DeltaAttentionSpec {
  enum class Form {
    kByKeyHead,   // Qwen3-Next: one matrix, for each key head [query | key | values | gates], and one [betas | decays]
    kByPart,      // Qwen3.5: one of [queries | keys | values], and one each of gates, betas and decays
    kLowRank,     // Kimi: one of each part; gates, and decays of every key channel, come from a small latent of head_size; the gate is a sigmoid
  };
  Form form = Form::kByPart;
  int64_t num_key_heads = 0, num_value_heads = 0, key_size = 0, value_size = 0;
  int64_t taps = 4;                    // of the causal convolution
  double norm_epsilon = 1e-6;          // of the norm behind
  // Value head h reads key head h / (value heads / key heads); tiled: h % key heads, as GGUF files of Qwen3.5 have them.
  bool tiled_value_heads = false;

  int64_t key_width() const { return num_key_heads * key_size; }
  int64_t value_width() const { return num_value_heads * value_size; }
  int64_t values_per_key() const { return num_value_heads / num_key_heads; }
};

struct MlpSpec {   // down(activation(gate(x)) * up(x)), or down(activation(up(x)))
  enum class Activation { kSilu, kGeluTanh };
  int64_t width = 0;
  Activation activation = Activation::kSilu;
  bool gated = true;
  bool fused = false;   // gate and up are one linear layer
  bool bias = false;
};

struct RouterSpec {   // which experts a token goes through, and their weights
  enum class Score { kSoftmax, kSigmoid, kSoftmaxOfChosen };   // kSoftmaxOfChosen: chosen by their logits, weighted by the softmax over the chosen
  int64_t num_experts = 0, experts_per_token = 0;
  Score score = Score::kSoftmax;
  bool bias = false;                   // of the logits
  bool selection_bias = false;         // added to the scores to choose, not to weigh
  enum class GroupScore { kTwoBest, kBest };      // a group counts as the sum of its two best scores, or as its best one
  int64_t num_groups = 1, groups_per_token = 1;   // only experts of the best groups are chosen
  GroupScore group_score = GroupScore::kTwoBest;
  bool renormalise = false;            // weights divided by their sum over the chosen: max(sum, smallest_sum)
  double smallest_sum = 0;
  double scale = 1;                    // of the weights
};

struct ExpertsSpec {   // sum over the chosen experts of weight * expert(x), and a shared expert that all tokens go through
  enum class Activation { kSwiGlu, kClampedSwiGlu };
  RouterSpec router;
  int64_t width = 0;
  Activation activation = Activation::kSwiGlu;
  double clamp_alpha = 1.702, clamp_limit = 7;   // of kClampedSwiGlu
  bool bias = false;                   // of the experts
  int64_t shared_width = 0;            // 0: no shared expert
  bool shared_gate = false;            // the shared expert's result is multiplied by sigmoid(a row of weights times x)
  bool has_balancing_loss = false;     // the family defines an auxiliary load-balancing loss
};

using MixerSpec = std::variant<AttentionSpec, LatentAttentionSpec, DeltaAttentionSpec>;   // what mixes tokens
using ChannelSpec = std::variant<MlpSpec, ExpertsSpec>;               // what acts on each token alone

// Heads as the attention operator and its cache hold them; none in a layer without keys and values.
struct HeadShape {
  int64_t num_heads = 0, num_kv_heads = 0, size = 0;
};

// x + mixer_post_norm(mixer(mixer_norm(x))), then the same with the channel. A norm that is absent changes nothing.
struct LayerSpec {
  std::optional<NormSpec> mixer_norm, mixer_post_norm, channel_norm, channel_post_norm;
  MixerSpec mixer;
  ChannelSpec channel;

  AttentionSpec& attention() { return std::get<AttentionSpec>(mixer); }
  const AttentionSpec& attention() const { return std::get<AttentionSpec>(mixer); }
  const LatentAttentionSpec* latent_attention() const { return std::get_if<LatentAttentionSpec>(&mixer); }   // null in a layer with another mixer
  const DeltaAttentionSpec* delta_attention() const { return std::get_if<DeltaAttentionSpec>(&mixer); }
  bool takes_selected_keys() const { return latent_attention() && latent_attention()->indexer && latent_attention()->indexer->shared; }   // of the layer before
  HeadShape heads() const {
    if (delta_attention()) return {};
    if (const auto* latent = latent_attention()) return {latent->num_heads, latent->num_heads, latent->padded_size()};
    return {attention().num_heads, attention().num_kv_heads, attention().head_size};
  }
  MlpSpec& mlp() { return std::get<MlpSpec>(channel); }
  const MlpSpec& mlp() const { return std::get<MlpSpec>(channel); }
  const ExpertsSpec* experts() const { return std::get_if<ExpertsSpec>(&channel); }   // null in a dense layer
};

struct EmbeddingSpec {
  double scale = 1;
  bool learned_positions = false;      // a second matrix [max_positions, hidden_size] is added
  std::optional<NormSpec> norm;
};

struct DecoderSpec {
  std::string family;             // model_type: "llama", "qwen2", "qwen3"
  int64_t vocab_size = 0, hidden_size = 0, max_positions = 0;
  EmbeddingSpec embedding;
  std::vector<RopeSpec> ropes;
  std::vector<LayerSpec> layers;
  NormSpec final_norm;
  bool tied_head = false;         // the head is the embedding matrix
  double logit_softcap = 0;       // logits -> softcap * tanh(logits / softcap); 0: none

  // The first layer that attends by keys and values, or the first: what configurations say of heads.
  const LayerSpec& attention_layer() const {
    for (const auto& layer : layers) {
      if (!layer.delta_attention()) return layer;
    }
    return layers.at(0);
  }
  bool is_recurrent() const {   // some layer keeps a state that cannot be cut back to fewer tokens
    return std::any_of(layers.begin(), layers.end(), [](const LayerSpec& layer) { return layer.delta_attention() != nullptr; });
  }
  const ExpertsSpec* experts() const {   // of the first layer that has some; null in a dense model
    for (const auto& layer : layers) {
      if (layer.experts()) return layer.experts();
    }
    return nullptr;
  }
  // Width of the first dense MLP, or where all layers have experts that of an expert.
  int64_t dense_width() const {
    for (const auto& layer : layers) {
      if (const auto* mlp = std::get_if<MlpSpec>(&layer.channel)) return mlp->width;
    }
    return experts() ? experts()->width : 0;
  }
};

}  // namespace graft
