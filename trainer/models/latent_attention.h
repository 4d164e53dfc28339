// Block: multi-head latent attention (DeepSeek-V2, arXiv 2405.04434). Queries, keys and values come from small normed latents; one rotary key serves all heads.
#pragma once
#include <optional>

#include "trainer/models/blocks.h"
#include "trainer/models/decoder_spec.h"
#include "trainer/models/key_indexer.h"

namespace graft {

class LatentAttention final : public Block {
 public:
  explicit LatentAttention(const LatentAttentionSpec& spec) : spec_(spec) {}
  at::Tensor forward(const BlockInput& input, const LayerContext& context) const override;
  std::vector<Linear*> linears() override;
  void set_device(c10::Device device, at::ScalarType compute) override;

  Linear query_in;                     // to the queries' latent; without one to the queries of all heads
  std::optional<Norm> query_norm;
  std::optional<Linear> query_out;     // from the latent: a head's rows are [plain | rotary]
  Linear key_value_in;                 // to [latent | rotary key]
  std::optional<Norm> key_value_norm;
  Linear key_value_out;                // from the latent: a head's rows are [plain key | value]
  Linear output;
  std::optional<KeyIndexer> indexer;   // with a queries' latent

 private:
  at::Tensor queries_keys_values(const at::Tensor& latents_NR, const Batch& batch) const;

  LatentAttentionSpec spec_;
};

}  // namespace graft
