// What most families share: the configuration keys of Llama, their GGUF counterparts, and small steps from there.
#pragma once
#include <functional>
#include <initializer_list>
#include <string>

#include "trainer/models/families/config_reader.h"
#include "trainer/models/families/family.h"
#include "trainer/models/families/gguf_keys.h"
#include "trainer/models/families/rope_config.h"
#include "trainer/models/families/weight_names.h"

namespace graft {

constexpr int64_t kLargestCount = int64_t{1} << 20;   // of heads, layers' widths over 4, hidden sizes: larger ones are damage

// What an absent key means: hub files leave out what the family's class has by default.
struct LlamaDefaults {
  RopeDefaults rope;
  bool tied_head = false;
  int64_t head_size = 0;   // 0: hidden size / heads
  MlpSpec::Activation activation = MlpSpec::Activation::kSilu;
  int64_t dense_width = 0; // of layers without experts, where the family has none: intermediate_size may be absent
  bool own_ropes = false;  // the family reads its rotary keys itself
};

// Everything but what the family sets itself. The reader is finished by the caller.
DecoderSpec llama_like_spec(ConfigReader& reader, const std::string& family, const LlamaDefaults& defaults = {});
DecoderSpec llama_like_spec(const GgufFile& file, const std::string& family);
// The same without what it says of heads and rotary embedding. Layers that predict further tokens (nextn_predict_layers) are not among its layers.
DecoderSpec headless_spec(const GgufFile& file, const std::string& family);

// layer_types: "full_attention" or "sliding_attention" per layer; where the key is absent, is_sliding(index) says.
void read_windows(ConfigReader& reader, DecoderSpec& spec, int64_t window, const std::function<bool(size_t)>& is_sliding);
// llama.cpp computes these architectures without a window: the context that the header promises ends where the window would begin to matter.
void limit_context_to_window(const DecoderSpec& spec, GgufKeys& keys);

// An RMS norm of each query and key head, with the epsilon of the layer's own.
void set_head_norms(DecoderSpec& spec, AttentionSpec::HeadNorm place = AttentionSpec::HeadNorm::kBeforeRotation);

// UserError where a model has biases and llama.cpp's graph of its family has none.
void refuse_biases(const DecoderSpec& spec, const GgufKeys& keys);

bool has_tensor(const GgufFile& file, const char* name);
// Names that differ from Llama's.
WeightNames llama_names_with(std::initializer_list<std::pair<const std::string, PartName>> layer_parts);

}  // namespace graft
