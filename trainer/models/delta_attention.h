// Block: linear attention by the gated delta rule. It keeps a state per head in place of keys and values.
#pragma once
#include <optional>
#include <vector>

#include "trainer/models/blocks.h"
#include "trainer/models/decoder_spec.h"

namespace graft {

class DeltaAttention final : public Block {
 public:
  explicit DeltaAttention(const DeltaAttentionSpec& spec) : spec_(spec) {}
  at::Tensor forward(const BlockInput& input, const LayerContext& context) const override;
  std::vector<Linear*> linears() override;
  void set_device(c10::Device device, at::ScalarType compute) override;

  // Of the block's input, as DeltaAttentionSpec::Form says: {query_key_value_gate, beta_decay}, {query_key_value, gate, beta, decay} or
  // {query, key, value, decay_a, beta, gate_a}.
  std::vector<Linear> inputs;
  std::optional<Linear> decay_out, gate_out;   // of kLowRank: from decay_a's and gate_a's latents
  Linear output;
  at::Tensor convolution_CK, decay_rate_H, decay_bias_A, norm_weight_V;   // float32

 private:
  DeltaAttentionInputs parts_of(const at::Tensor& projected, const Batch& batch) const;

  DeltaAttentionSpec spec_;
};

}  // namespace graft
