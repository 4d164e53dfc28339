// What both paths of experts tell autograd.
#pragma once
#include <vector>

#include "kernels/experts/experts.h"

namespace graft {

// In the order of a node's gradients: x, the router's weights, A and B of gate and up, A and B of down; banks without an adapter have none.
inline std::vector<at::Tensor> inputs_with_gradient(const at::Tensor& x_NC, const at::Tensor& weights_NK, const ExpertBank& gate_up, const ExpertBank& down) {
  std::vector<at::Tensor> inputs = {x_NC, weights_NK};
  for (const auto* bank : {&gate_up, &down}) {
    if (bank->rank() > 0) inputs.insert(inputs.end(), {bank->lora_a_EC, bank->lora_b_ER});
  }
  return inputs;
}

// For a node, which must not hold leaves of its own graph.
inline ExpertBank detached(ExpertBank bank) {
  if (bank.rank() == 0) return bank;
  bank.lora_a_EC = bank.lora_a_EC.detach();
  bank.lora_b_ER = bank.lora_b_ER.detach();
  return bank;
}

}  // namespace graft
