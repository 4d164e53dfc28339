// Block: a router chooses experts for each token; their weighted sum, and beside it a shared expert that sees all tokens.
#pragma once
#include <optional>

#include "kernels/router/router.h"
#include "trainer/models/blocks.h"
#include "trainer/models/decoder_spec.h"
#include "trainer/models/mlp.h"

namespace graft {

class MixtureOfExperts final : public Block {
 public:
  explicit MixtureOfExperts(const ExpertsSpec& spec) : spec_(spec) {}
  at::Tensor forward(const BlockInput& input, const LayerContext& context) const override;
  std::vector<Linear*> linears() override;   // without the router and the shared expert's gate, which stay frozen
  void set_device(c10::Device device, at::ScalarType compute) override;

  FrozenWeight router;            // [E, C]
  at::Tensor router_bias_E, selection_bias_E;   // float32 or undefined
  Linear gate_up, down;           // banks
  std::optional<Mlp> shared;
  std::optional<FrozenWeight> shared_gate;      // [1, C]

 private:
  ExpertsSpec spec_;
};

// The router of a specification.
RouterOptions router_options(const RouterSpec& spec);

}  // namespace graft
