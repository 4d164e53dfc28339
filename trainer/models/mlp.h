// Block: down(activation(gate(x)) * up(x)), or without a gate down(activation(up(x))).
#pragma once
#include "trainer/models/blocks.h"
#include "trainer/models/decoder_spec.h"

namespace graft {

class Mlp final : public Block {
 public:
  explicit Mlp(const MlpSpec& spec) : spec_(spec) {}
  at::Tensor forward(const BlockInput& input, const LayerContext& context) const override;
  std::vector<Linear*> linears() override;

  std::vector<Linear> inputs;   // gate and up; or one whose rows are both; or up alone
  Linear down;

 private:
  MlpSpec spec_;
};

}  // namespace graft
