#include "checkpoints/codecs/gguf_mix.h"

#include <algorithm>
#include <charconv>

namespace graft {
namespace {

using Format = GgufFormat;

bool contains(std::string_view name, std::string_view part) { return name.find(part) != std::string_view::npos; }

// 3 of "blk.3.attn_v.weight"; -1 outside the layers.
int layer_of(std::string_view name) {
  int layer = -1;
  if (name.starts_with("blk.")) std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  return layer;
}

// The first and last eighth of the layers, and every third between: where errors cost most.
bool gets_more_bits(int layer, int num_layers) {
  const int eighth = num_layers / 8;
  return layer < eighth || layer >= 7 * num_layers / 8 || (layer - eighth) % 3 == 2;
}

// Of 70 billion parameters, by the architectures that llama.cpp knows to have such a size: a small matrix of values is shared by many heads.
bool is_70b(const GgufModelFacts& model) {
  return model.num_layers == 80 && ((model.architecture == "llama" && model.heads_per_group != 1) || model.architecture == "qwen2" || model.architecture == "olmo");
}

TensorType values_in_layers(Format format, TensorType type, int place, int num_places, int heads_per_group) {
  switch (format) {
    case Format::kQ2_K: return heads_per_group >= 4 ? TensorType::kQ4_K : TensorType::kQ3_K;
    case Format::kQ3_K_M: return place < 2 ? TensorType::kQ5_K : TensorType::kQ4_K;
    case Format::kQ3_K_L: return TensorType::kQ5_K;
    case Format::kQ4_K_S: return place < 4 ? TensorType::kQ5_K : type;
    case Format::kQ4_K_M:
    case Format::kQ5_K_M: return gets_more_bits(place, num_places) ? TensorType::kQ6_K : type;
    case Format::kIQ4_NL:
    case Format::kIQ4_XS: return heads_per_group >= 4 ? TensorType::kQ5_K : type;
    default: return type;
  }
}

TensorType values(Format format, TensorType type, int layer, const GgufModelFacts& model) {
  if (model.num_experts == 8) return TensorType::kQ8_0;
  const auto& layers = model.value_layers;
  const auto place = layers.empty() ? layer : static_cast<int>(std::lower_bound(layers.begin(), layers.end(), layer) - layers.begin());
  const auto num_places = layers.empty() ? model.num_layers : static_cast<int>(layers.size());
  const auto chosen = values_in_layers(format, type, place, num_places, model.heads_per_group);
  return is_70b(model) && (chosen == TensorType::kQ3_K || chosen == TensorType::kQ4_K) ? TensorType::kQ5_K : chosen;
}

TensorType down(Format format, TensorType type, int layer, const GgufModelFacts& model) {
  const bool in_first_eighth = layer < model.num_layers / 8;
  switch (format) {
    case Format::kQ2_K: return TensorType::kQ3_K;
    case Format::kQ3_K_M: return layer < model.num_layers / 16 ? TensorType::kQ5_K : TensorType::kQ4_K;
    case Format::kQ3_K_L: return TensorType::kQ5_K;
    case Format::kQ4_K_S: return in_first_eighth ? TensorType::kQ5_K : type;
    case Format::kQ4_K_M:
    case Format::kQ5_K_M: return gets_more_bits(layer, model.num_layers) ? TensorType::kQ6_K : type;
    case Format::kIQ4_NL:
    case Format::kIQ4_XS: return in_first_eighth && !model.has_importance ? TensorType::kQ5_K : type;
    case Format::kQ4_0: return in_first_eighth && model.has_importance ? TensorType::kQ4_1 : type;
    case Format::kQ5_0: return in_first_eighth && model.has_importance ? TensorType::kQ5_1 : type;
    default: return type;
  }
}

TensorType attention_output(Format format, TensorType type, const GgufModelFacts& model) {
  if (model.num_experts == 8) {
    switch (format) {
      case Format::kQ2_K:
      case Format::kQ3_K_S:
      case Format::kQ3_K_M:
      case Format::kQ4_K_S:
      case Format::kQ4_K_M:
      case Format::kIQ4_NL:
      case Format::kIQ4_XS: return TensorType::kQ5_K;
      default: return type;
    }
  }
  switch (format) {
    case Format::kQ2_K: return TensorType::kQ3_K;
    case Format::kQ3_K_M: return TensorType::kQ4_K;
    case Format::kQ3_K_L: return TensorType::kQ5_K;
    default: return type;
  }
}

// Experts (as llama.cpp sees them: tensors of three dimensions) in MXFP4, all else in Q8_0. Of a model without experts, for which llama.cpp has no such
// form, the matrices of the layers.
TensorType microscaling(int layer, std::span<const int64_t> shape, const GgufModelFacts& model) {
  const bool is_stack = shape.size() >= 3 && shape[shape.size() - 3] > 1;
  return is_stack || (model.num_experts == 0 && layer >= 0) ? TensorType::kMXFP4 : TensorType::kQ8_0;
}

}  // namespace

TensorType gguf_mixed_type(GgufFormat format, TensorType type, std::string_view name, std::span<const int64_t> shape, const GgufModelFacts& model) {
  const int layer = layer_of(name);
  if (name == "output.weight" || (model.tied_embeddings && name == "token_embd.weight")) {
    const bool fits = shape.back() % info(type).block_elements == 0;
    return !fits || type == TensorType::kQ8_0 || format == Format::kMXFP4 ? TensorType::kQ8_0 : TensorType::kQ6_K;
  }
  if (format == Format::kMXFP4) return microscaling(layer, shape, model);
  if (gguf_holds_values(name)) return values(format, type, layer, model);
  if (contains(name, "attn_k.weight")) return model.num_experts == 8 ? TensorType::kQ8_0 : type;
  if (contains(name, "ffn_down")) return down(format, type, layer, model);
  if (contains(name, "attn_output.weight")) return attention_output(format, type, model);
  return type;
}

bool gguf_holds_values(std::string_view name) {
  return contains(name, "attn_v.weight") || contains(name, "attn_qkv.weight") || contains(name, "attn_kv_b.weight");
}

}  // namespace graft
