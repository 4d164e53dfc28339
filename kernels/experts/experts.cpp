#include "kernels/experts/experts.h"

#include <ATen/ATen.h>

#include "kernels/elementwise/typed_rows.h"
#include "kernels/gated_activation/gated_activation.h"

namespace graft {

int64_t ExpertBank::outputs() const {
  int64_t rows = 0;
  for (int64_t part = 0; part < parts; ++part) rows += weights[static_cast<size_t>(part)]->rows();
  return rows;
}

namespace {

// x W_e^T + bias + scale * (x A_e^T) B_e^T, in the wide type.
at::Tensor product(const at::Tensor& x_MC, const ExpertBank& bank, int64_t expert) {
  const auto type = x_MC.scalar_type(), wide = wide_type(type);
  std::vector<at::Tensor> outputs;
  for (int64_t part = 0; part < bank.parts; ++part) {
    const auto* weight = bank.weights[static_cast<size_t>(expert * bank.parts + part)];
    outputs.push_back(at::matmul(x_MC, weight->matrix(type, x_MC.device()).t()).to(wide));
  }
  auto y_MO = outputs.size() == 1 ? outputs[0] : at::cat(outputs, -1);
  if (bank.bias_EO.defined()) y_MO = y_MO + bank.bias_EO[expert].to(wide);
  if (const int64_t rank = bank.rank(); rank > 0) {
    const auto a_RC = bank.lora_a_EC.narrow(0, expert * rank, rank).to(type);
    const auto b_OR = bank.lora_b_ER.narrow(0, expert * bank.outputs(), bank.outputs()).to(type);
    const auto product_MO = bank.scale * at::matmul(at::matmul(bank.merged ? x_MC.detach() : x_MC, a_RC.t()), b_OR.t()).to(wide);
    y_MO = y_MO + (bank.merged ? product_MO - product_MO.detach() : product_MO);   // merged: zero, with the product's gradient
  }
  return y_MO;
}

GatedActivation activation_of(const ExpertActivation& activation) {
  const bool clamped = activation.kind == ExpertActivation::Kind::kClampedSwiGlu;
  return {clamped ? GatedActivation::Kind::kClampedSwiGlu : GatedActivation::Kind::kSwiGlu, false, activation.alpha, activation.limit};
}

}  // namespace

at::Tensor experts_reference(const at::Tensor& x_NC, const at::Tensor& chosen_NK, const at::Tensor& weights_NK, const ExpertBank& gate_up,
                             const ExpertBank& down, const ExpertActivation& activation) {
  const auto type = x_NC.scalar_type(), wide = wide_type(type);
  auto y_NC = at::zeros({x_NC.size(0), down.outputs()}, x_NC.options().dtype(wide).requires_grad(false));
  for (int64_t expert = 0; expert < gate_up.num_experts; ++expert) {
    const auto place = (chosen_NK == expert).nonzero();
    if (place.size(0) == 0) continue;
    const auto token_M = place.select(1, 0), slot_M = place.select(1, 1);
    const auto h_MO = product(x_NC.index_select(0, token_M), gate_up, expert).to(type);
    const auto q_MI = gated_activation(h_MO, activation_of(activation));
    const auto weight_M1 = weights_NK.index({token_M, slot_M}).unsqueeze(1).to(wide);
    y_NC = y_NC.index_add(0, token_M, product(q_MI, down, expert) * weight_M1);
  }
  return y_NC.to(type);
}

}  // namespace graft
