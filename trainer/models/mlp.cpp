#include "trainer/models/mlp.h"

#include "trainer/models/softmax_attention.h"

namespace graft {

at::Tensor Mlp::forward(const at::Tensor& x_NC, const Batch& batch) const {
  LinearPrologue norm, gated;
  norm.kind = LinearPrologue::Kind::kRmsNorm;
  norm.norm_weight_C = norm_weight_C;
  norm.epsilon = norm_epsilon;
  gated.kind = LinearPrologue::Kind::kSwiGlu;
  const auto gate_up = lora_linear(x_NC, norm, {gate.part(), up.part()}, dropout_of(gate, batch));
  return lora_linear(gate_up, gated, {down.part()}, dropout_of(down, batch));
}

void Mlp::set_device(c10::Device device, at::ScalarType compute) {
  move_to(norm_weight_C, device);
  for (auto* linear : {&gate, &up, &down}) linear->set_device(device, compute);
}

}  // namespace graft
