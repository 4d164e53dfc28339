// Block: query/key/value, attention by softmax, output projection.
#pragma once
#include "trainer/models/blocks.h"
#include "trainer/models/decoder_spec.h"

namespace graft {

class SoftmaxAttention final : public Block {
 public:
  explicit SoftmaxAttention(const AttentionSpec& spec);
  at::Tensor forward(const BlockInput& input, const LayerContext& context) const override;
  std::vector<Linear*> linears() override;
  void set_device(c10::Device device, at::ScalarType compute) override;

  std::vector<Linear> inputs;           // query (with an output gate: all queries, then all gates), key, value; or one whose rows are all three
  Linear output;
  at::Tensor query_norm, key_norm;      // float32: of one head, or of all (AttentionSpec::HeadNorm)
  at::Tensor sinks_H;                   // float32 or undefined

 private:
  at::Tensor normed_widths(const at::Tensor& qkv) const;

  AttentionSpec spec_;
  at::Tensor slopes_H_;
};

// Slopes of attention with linear biases: powers of 2^(-8/H), for H no power of two every second one of twice as many after those of the next
// smaller power (Press et al. 2022, arXiv 2108.12409).
std::vector<float> alibi_slopes(int64_t num_heads);

}  // namespace graft
