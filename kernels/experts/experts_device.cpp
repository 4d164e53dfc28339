#include "kernels/experts/experts_device.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include "kernels/common/check_tensor.h"
#include "kernels/device_launch/device_launch.h"
#include "kernels/device_launch/row_type.h"
#include "kernels/experts/expert_gradients.h"
#include "kernels/experts/experts.cuh"

namespace graft {
namespace {

using at::Tensor;
using ActivationKind = cuda::GatedActivationRows::Kind;

void check_bank(const char* bias, const char* a, const char* b, const ExpertBank& bank, c10::Device device) {
  const int64_t rank = bank.rank();
  check_tensor("experts", bias, bank.bias_EO, device, {at::kFloat}, {bank.num_experts, bank.outputs()});
  if (bank.lora_a_EC.defined() != bank.lora_b_ER.defined()) fail("kernels", "experts: expected {} and {} or neither, got one", a, b);
  check_tensor("experts", a, bank.lora_a_EC, device, {at::kFloat}, {bank.num_experts * rank, bank.inputs()});
  check_tensor("experts", b, bank.lora_b_ER, device, {at::kFloat}, {bank.num_experts * bank.outputs(), rank});
}

void check_arguments(const Tensor& x_NC, const Tensor& chosen_NK, const Tensor& weights_NK, const ExpertBank& gate_up, const ExpertBank& down) {
  const auto device = x_NC.device();
  check_tensor("experts", "chosen", chosen_NK, device, {at::kLong}, {x_NC.size(0), -1});
  check_tensor("experts", "the router's weights", weights_NK, device, {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}, {x_NC.size(0), chosen_NK.size(1)});
  check_bank("bias of gate_up", "A of gate_up", "B of gate_up", gate_up, device);
  check_bank("bias of down", "A of down", "B of down", down, device);
  if (!chosen_NK.is_cpu() || chosen_NK.numel() == 0) return;   // elsewhere it would be a wait: kernels leave such choices out
  const auto first = chosen_NK.min().item<int64_t>(), last = chosen_NK.max().item<int64_t>();
  if (first < 0 || last >= gate_up.num_experts) {
    fail("kernels", "experts: expected chosen experts from 0 to {}, got {}", gate_up.num_experts - 1, first < 0 ? first : last);
  }
}

// Parts of one size, as kernels take them.
bool has_equal_parts(const ExpertBank& bank) {
  for (const auto* weight : bank.weights) {
    if (weight->rows() != bank.weights.front()->rows()) return false;
  }
  return bank.parts <= cuda::kMostExpertParts;
}

// Every expert's rows, and the tensors that the lists lie in.
class KernelRows {
 public:
  KernelRows() = default;
  KernelRows(const Tensor& x_NC, const Tensor& chosen_NK, int64_t num_experts) : chosen_NK_(for_kernels(chosen_NK)) {
    const int64_t total = chosen_NK.numel();
    rows_.num_tokens = chosen_NK.size(0);
    rows_.choices = static_cast<int>(chosen_NK.size(1));
    rows_.num_experts = static_cast<int>(num_experts);
    rows_.tile_rows = cuda::expert_tile_rows(total, num_experts);
    rows_.num_tiles = static_cast<int>(cuda::most_pieces(total, num_experts, rows_.tile_rows));
    rows_.num_spans = static_cast<int>(cuda::most_pieces(total, num_experts, cuda::kExpertSpan));
    rows_.chosen_NK = chosen_NK_.const_data_ptr<int64_t>();
    rows_.order_M = integers(x_NC, total);
    rows_.place_NK = integers(x_NC, total);
    rows_.tiles = reinterpret_cast<cuda::ExpertPiece*>(integers(x_NC, 4 * rows_.num_tiles));
    rows_.spans = reinterpret_cast<cuda::ExpertPiece*>(integers(x_NC, 4 * rows_.num_spans));
    rows_.first_span_E1 = integers(x_NC, num_experts + 1);
    auto counts = at::empty({cuda::list_chunks(total) * num_experts}, x_NC.options().dtype(at::kInt));
    launch_on(x_NC, "experts", cuda::ExpertLists{rows_, counts.data_ptr<int32_t>()});
  }
  const cuda::ExpertRows& operator*() const { return rows_; }
  int64_t count() const { return rows_.num_tokens * rows_.choices; }

 private:
  int32_t* integers(const Tensor& like, int64_t count) {
    held_.push_back(at::empty({count}, like.options().dtype(at::kInt)));
    return held_.back().data_ptr<int32_t>();
  }

  cuda::ExpertRows rows_ = {};
  Tensor chosen_NK_;
  std::vector<Tensor> held_;
};

// A bank as kernels read it: matrices and factors in the type of the rows, and the table of the matrices.
class KernelBank {
 public:
  KernelBank(const Tensor& like, const ExpertBank& bank) : scale_(static_cast<float>(bank.scale)) {
    const auto type = like.scalar_type();
    auto table = at::empty({static_cast<int64_t>(bank.weights.size())}, at::kLong);
    for (size_t i = 0; i < bank.weights.size(); ++i) {
      held_.push_back(for_kernels(bank.weights[i]->matrix(type, like.device())));
      table.data_ptr<int64_t>()[i] = static_cast<int64_t>(reinterpret_cast<intptr_t>(held_.back().const_data_ptr()));
    }
    held_.push_back(table.to(like.device(), at::kLong, /*non_blocking=*/true));   // no wait: pageable memory is read before the copy returns
    bank_.weights = static_cast<const void* const*>(held_.back().const_data_ptr());
    bank_.parts = static_cast<int>(bank.parts);
    bank_.ranks = static_cast<int>(bank.rank());
    bank_.inputs = bank.inputs();
    bank_.outputs = bank.outputs();
    bank_.bias_EO = bank.bias_EO.defined() ? static_cast<const float*>(held(bank.bias_EO)) : nullptr;
    if (bank_.ranks == 0) return;
    bank_.a_EC = held(bank.lora_a_EC.detach().to(type));
    bank_.b_ER = held(bank.lora_b_ER.detach().to(type));
  }
  const cuda::ExpertMatrices& operator*() const { return bank_; }
  const cuda::ExpertMatrices* operator->() const { return &bank_; }

  // z of rows p, or with B instead of A dz of rows dy. Undefined without an adapter.
  Tensor shrink(const KernelRows& rows, const Tensor& from, bool gathered, bool by_b) const {
    if (bank_.ranks == 0) return {};
    auto z_MR = at::empty({rows.count(), bank_.ranks}, from.options());
    launch_on(from, "experts",
              cuda::ExpertShrink{*rows, row_type(from), {from.const_data_ptr(), gathered}, by_b ? bank_.b_ER : bank_.a_EC, by_b,
                                 by_b ? bank_.outputs : bank_.inputs, bank_.ranks, scale_, z_MR.data_ptr()});
    return z_MR;
  }

  // The gradient of A (wide: p, narrow: dz) or B (wide: dy, narrow: z) of all experts.
  Tensor factor_gradient(const KernelRows& rows, const Tensor& wide, bool gathered, const Tensor& narrow_MR, const Tensor& weights_NK, bool of_a) const {
    const int64_t columns = of_a ? bank_.inputs : bank_.outputs, experts = (*rows).num_experts;
    const auto float32 = wide.options().dtype(at::kFloat);
    auto gradient = at::empty({of_a ? experts * bank_.ranks : experts * columns, of_a ? columns : bank_.ranks}, float32);
    auto partials = at::empty({(*rows).num_spans * columns * cuda::expert_window(bank_.ranks)}, float32);
    launch_on(wide, "experts backward",
              cuda::ExpertFactorGradient{*rows, row_type(wide), {wide.const_data_ptr(), gathered}, columns, narrow_MR.const_data_ptr(),
                                         weights_NK.defined() ? weights_NK.const_data_ptr<float>() : nullptr, bank_.ranks, of_a, partials.data_ptr<float>(),
                                         gradient.data_ptr<float>()});
    return gradient;
  }

 private:
  const void* held(const Tensor& tensor) {
    held_.push_back(for_kernels(tensor));
    return held_.back().const_data_ptr();
  }

  cuda::ExpertMatrices bank_ = {};
  float scale_;
  std::vector<Tensor> held_;
};

const void* pointer(const Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; }

ActivationKind kind_of(const ExpertActivation& activation) {
  return activation.kind == ExpertActivation::Kind::kClampedSwiGlu ? ActivationKind::kClampedSwiGlu : ActivationKind::kSwiGlu;
}

// Rows of experts back to tokens, weighted where there are weights.
Tensor combined(const KernelRows& rows, const Tensor& rows_MC, const Tensor& weights_NK) {
  auto y_NC = at::empty({(*rows).num_tokens, rows_MC.size(1)}, rows_MC.options());
  launch_on(rows_MC, "experts",
            cuda::ExpertCombine{*rows, row_type(rows_MC), rows_MC.size(1), rows_MC.const_data_ptr(), static_cast<const float*>(pointer(weights_NK)),
                                y_NC.data_ptr()});
  return y_NC;
}

struct KernelExpertsBackward : torch::autograd::Node {
  KernelRows rows;
  ExpertBank gate_up, down;
  ExpertActivation activation;
  Tensor x_NC, weights_NK, h_MO, z_in_MR, z_out_MR;

  std::string name() const override { return "KernelExpertsBackward"; }
  void release_variables() override {
    x_NC = weights_NK = h_MO = z_in_MR = z_out_MR = Tensor();
    rows = KernelRows();
  }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    torch::autograd::variable_list results(num_outputs());
    if (!gradients[0].defined()) return results;
    const auto dy_NC = for_kernels(gradients[0]);
    const auto type = row_type(dy_NC);
    size_t slot = down.rank() > 0 ? results.size() - 2 : results.size();
    Tensor dh_MO;
    {
      const KernelBank bank(x_NC, down);
      const auto dz_MR = bank.shrink(rows, dy_NC, true, true);
      const int64_t num_partials = cuda::expert_weight_partials(bank->inputs);
      auto q_MI = at::empty({rows.count(), bank->inputs}, x_NC.options()), partials = at::empty({num_partials, rows.count()}, weights_NK.options());
      dh_MO = at::empty_like(h_MO);
      launch_on(x_NC, "experts backward",
                cuda::ExpertDownBackward{*rows, type, *bank, dy_NC.const_data_ptr(), pointer(dz_MR), weights_NK.const_data_ptr<float>(), h_MO.const_data_ptr(),
                                         kind_of(activation), static_cast<float>(activation.alpha), static_cast<float>(activation.limit), dh_MO.data_ptr(),
                                         q_MI.data_ptr(), partials.data_ptr<float>()});
      if (task_should_compute_output(1)) {
        results[1] = at::empty_like(weights_NK);
        launch_on(x_NC, "experts backward",
                  cuda::ExpertWeightsBackward{*rows, type, partials.const_data_ptr<float>(), static_cast<int>(num_partials), bank->bias_EO,
                                              dy_NC.const_data_ptr(), dy_NC.size(1), results[1].data_ptr<float>()});
      }
      if (bank->ranks > 0) {
        results[slot] = bank.factor_gradient(rows, q_MI, false, dz_MR, weights_NK, true);
        results[slot + 1] = bank.factor_gradient(rows, dy_NC, true, z_out_MR, weights_NK, false);
      }
    }
    const KernelBank bank(x_NC, gate_up);
    const auto dz_MR = bank.shrink(rows, dh_MO, false, true);
    if (bank->ranks > 0) {
      results[2] = bank.factor_gradient(rows, x_NC, true, dz_MR, {}, true);
      results[3] = bank.factor_gradient(rows, dh_MO, false, z_in_MR, {}, false);
    }
    if (task_should_compute_output(0)) {
      auto dp_MC = at::empty({rows.count(), bank->inputs}, x_NC.options());
      launch_on(x_NC, "experts backward", cuda::ExpertGateUpBackward{*rows, type, *bank, dh_MO.const_data_ptr(), pointer(dz_MR), dp_MC.data_ptr()});
      results[0] = combined(rows, dp_MC, {});
    }
    return results;
  }
};

}  // namespace

bool experts_have_kernels(const Tensor& x_NC, const Tensor& chosen_NK, const ExpertBank& gate_up, const ExpertBank& down) {
  return !gate_up.merged && !down.merged && has_row_type(x_NC) && gate_up.num_experts <= cuda::kMostListedExperts && has_equal_parts(gate_up) && has_equal_parts(down) && down.parts == 1 &&
         chosen_NK.numel() < (int64_t{1} << 30);
}

Tensor experts_by_kernels(const Tensor& x_NC, const Tensor& chosen_NK, const Tensor& weights_NK, const ExpertBank& gate_up, const ExpertBank& down,
                          const ExpertActivation& activation) {
  check_arguments(x_NC, chosen_NK, weights_NK, gate_up, down);
  const auto inputs = inputs_with_gradient(x_NC, weights_NK, gate_up, down);
  const bool has_gradient = torch::autograd::compute_requires_grad(at::TensorList(inputs));
  const auto x = for_kernels(x_NC.detach()), weights = for_kernels(weights_NK.detach().to(at::kFloat));
  const auto type = row_type(x);
  Tensor y_NC, h_MO, z_in_MR, z_out_MR;
  KernelRows rows(x, chosen_NK, gate_up.num_experts);
  {
    const at::NoGradGuard no_gradient;
    Tensor q_MI;
    {
      const KernelBank bank(x, gate_up);
      z_in_MR = bank.shrink(rows, x, true, false);
      h_MO = at::empty({rows.count(), bank->outputs}, x.options());
      q_MI = at::empty({rows.count(), bank->outputs / 2}, x.options());
      launch_on(x, "experts",
                cuda::ExpertGateUp{*rows, type, *bank, x.const_data_ptr(), pointer(z_in_MR), kind_of(activation), static_cast<float>(activation.alpha),
                                   static_cast<float>(activation.limit), h_MO.data_ptr(), q_MI.data_ptr()});
    }
    const KernelBank bank(x, down);
    z_out_MR = bank.shrink(rows, q_MI, false, false);
    auto o_MC = at::empty({rows.count(), bank->outputs}, x.options());
    launch_on(x, "experts", cuda::ExpertDown{*rows, type, *bank, q_MI.const_data_ptr(), pointer(z_out_MR), o_MC.data_ptr()});
    y_NC = combined(rows, o_MC, weights);
  }
  if (!has_gradient) return y_NC;
  auto node = std::make_shared<KernelExpertsBackward>();
  node->set_next_edges(torch::autograd::collect_next_edges(at::TensorList(inputs)));
  node->rows = std::move(rows);
  node->gate_up = detached(gate_up);
  node->down = detached(down);
  node->activation = activation;
  node->x_NC = x;
  node->weights_NK = weights;
  node->h_MO = h_MO;
  node->z_in_MR = z_in_MR;
  node->z_out_MR = z_out_MR;
  torch::autograd::create_gradient_edge(y_NC, node);
  return y_NC;
}

}  // namespace graft
