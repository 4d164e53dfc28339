// The CPU path. Letters: N tokens, K experts a token, M = N * K rows sorted by expert, C hidden, O = 2I outputs of gate and up, R ranks. Operand: see operands.h.
#include <algorithm>
#include <cmath>
#include <numeric>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include "kernels/common/error.h"
#include "kernels/common/operator_path.h"
#include "kernels/device_launch/device_launch.h"
#include "kernels/elementwise/typed_rows.h"
#include "kernels/experts/expert_gradients.h"
#include "kernels/experts/experts.h"
#include "kernels/experts/experts_device.h"
#include "kernels/experts/experts_rows.h"
#include "kernels/frozen_product/frozen_product.h"
#include "kernels/matrix_product/operands.h"
#include "kernels/scratch/scratch.h"
#include "kernels/tasks/for_each_task.h"

namespace graft {
namespace {

using at::Tensor;

// One bank's expert, as products read it. The ranks of all parts are one adapter: z is repeated before each part's columns of B.
struct ExpertView {
  ExpertView(const ExpertBank& bank, int64_t expert)
      : inputs(bank.inputs()), outputs(bank.outputs()), rank(bank.rank()), merged(bank.merged), scale(static_cast<float>(bank.scale)) {
    a_RC = rank > 0 ? bank.lora_a_EC.const_data_ptr<float>() + expert * rank * inputs : nullptr;
    b_OR = rank > 0 ? bank.lora_b_ER.const_data_ptr<float>() + expert * outputs * rank : nullptr;
    bias_O = bank.bias_EO.defined() ? bank.bias_EO.const_data_ptr<float>() + expert * outputs : nullptr;
    int64_t row = 0;
    for (int64_t part = 0; part < bank.parts; ++part) {
      const auto* weight = bank.weights[static_cast<size_t>(expert * bank.parts + part)];
      parts.push_back({weight, rank > 0 ? b_OR + row * rank : nullptr, rank});
      forward_parts.push_back(merged ? FrozenPart{weight} : parts.back());
      row += weight->rows();
    }
  }
  int64_t extended() const { return inputs + rank * static_cast<int64_t>(parts.size()); }
  int64_t forward_extended() const { return merged ? inputs : extended(); }

  std::vector<FrozenPart> parts, forward_parts;   // with their factors, of which merged weights have no need in forward
  const float *a_RC, *b_OR, *bias_O;
  int64_t inputs, outputs, rank;
  bool merged;
  float scale;
};

// A plain product whose bits do not depend on the number of threads: BLAS cuts its sums by them, but not inside a parallel region.
template <typename Operand>
void product_on_one_thread(int64_t m, int64_t n, int64_t k, const MatrixOf<Operand>& a, const MatrixOf<Operand>& b, float* c, int64_t c_row_stride, bool accumulate = false) {
  const auto product = [&] { operand_product<Operand>(m, n, k, a, b, c, c_row_stride, accumulate); };
  if (!std::is_same_v<Operand, float> || at::in_parallel_region() || at::get_num_threads() == 1) return product();
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t begin, int64_t) {
    if (begin == 0) product();
  });
}

// A of one expert in the operands' type.
template <typename Operand>
MatrixOf<Operand> factor_a(Scratch& scratch, const ExpertView& view, bool transposed) {
  auto* a_RC = scratch.elements<Operand>(view.rank * view.inputs);
  rows::from_float(view.a_RC, view.rank * view.inputs, a_RC);
  return {a_RC, view.inputs, transposed};
}

// y = p W^T + bias + z' B^T, with z = scale * p A^T written to z_MR; the rows of p have room for the ranks.
template <typename Operand>
void adapted_product(const ExpertView& view, int64_t rows, Operand* p_ME, Operand* z_MR, float* y_MO, int64_t y_stride) {
  const int64_t extended = view.forward_extended();
  if (view.rank > 0) {
    Scratch scratch;
    float* z = scratch.floats(rows * view.rank);
    product_on_one_thread<Operand>(rows, view.rank, view.inputs, {p_ME, extended}, factor_a<Operand>(scratch, view, true), z, view.rank);
    rows::scale(z, rows * view.rank, view.scale);
    rows::from_float(z, rows * view.rank, z_MR);
    for (int64_t m = 0; !view.merged && m < rows; ++m) {
      for (size_t part = 0; part < view.parts.size(); ++part) {
        std::copy_n(z_MR + m * view.rank, view.rank, p_ME + m * extended + view.inputs + static_cast<int64_t>(part) * view.rank);
      }
    }
  }
  frozen_product(rows, p_ME, extended, view.forward_parts, y_MO, y_stride);
  for (int64_t m = 0; view.bias_O && m < rows; ++m) rows::add(y_MO + m * y_stride, view.bias_O, view.outputs);
}

// dp = dy W + dz A (merged: dy W), with dz = scale * dy B, which stands in the first ranks behind dp's columns and, in the operands' type, in dz_MR.
template <typename Operand>
void adapted_product_backward(const ExpertView& view, int64_t rows, const Operand* dy_MO, float* dp_ME, Operand* dz_MR) {
  const int64_t extended = view.extended();
  frozen_product_backward(rows, dy_MO, view.outputs, view.parts, dp_ME, extended);
  if (view.rank == 0) return;
  for (int64_t m = 0; m < rows; ++m) {
    float* dz = dp_ME + m * extended + view.inputs;
    for (size_t part = 1; part < view.parts.size(); ++part) rows::add(dz, dz + static_cast<int64_t>(part) * view.rank, view.rank);
    rows::scale(dz, view.rank, view.scale);
    rows::from_float(dz, view.rank, dz_MR + m * view.rank);
  }
  if (view.merged) return;
  Scratch scratch;
  product_on_one_thread<Operand>(rows, view.inputs, view.rank, {dz_MR, view.rank}, factor_a<Operand>(scratch, view, false), dp_ME, extended, true);
}

// Which rows each expert has: row order[m] = n * K + k, for m in [first[e], first[e + 1]).
struct SortedRows {
  std::vector<int64_t> first, order;
  int64_t num_experts() const { return static_cast<int64_t>(first.size()) - 1; }
  int64_t count(int64_t expert) const { return first[static_cast<size_t>(expert) + 1] - first[static_cast<size_t>(expert)]; }
};

SortedRows sort_by_expert(const Tensor& chosen_NK, int64_t num_experts) {
  const auto chosen = chosen_NK.contiguous();
  const int64_t* expert = chosen.const_data_ptr<int64_t>();
  SortedRows sorted;
  sorted.first.assign(static_cast<size_t>(num_experts) + 1, 0);
  sorted.order.resize(static_cast<size_t>(chosen.numel()));
  for (int64_t i = 0; i < chosen.numel(); ++i) {
    if (expert[i] < 0 || expert[i] >= num_experts) fail("kernels", "experts: expected chosen experts from 0 to {}, got {}", num_experts - 1, expert[i]);
    ++sorted.first[static_cast<size_t>(expert[i]) + 1];
  }
  std::partial_sum(sorted.first.begin(), sorted.first.end(), sorted.first.begin());
  auto next = sorted.first;
  for (int64_t i = 0; i < chosen.numel(); ++i) sorted.order[static_cast<size_t>(next[static_cast<size_t>(expert[i])]++)] = i;
  return sorted;
}

// Calls f(expert) for each expert with rows: whole experts side by side where they are many, else one after another, each on all threads.
template <typename Function>
void for_experts(const SortedRows& sorted, const Function& f) {
  std::vector<int64_t> active;
  for (int64_t expert = 0; expert < sorted.num_experts(); ++expert) {
    if (sorted.count(expert) > 0) active.push_back(expert);
  }
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  if (threads == 1 || static_cast<int64_t>(active.size()) < 2 * threads) {
    for (const auto expert : active) f(expert);
    return;
  }
  std::stable_sort(active.begin(), active.end(), [&](int64_t a, int64_t b) { return sorted.count(a) > sorted.count(b); });
  for_each_task(active, f);
}

struct Work {
  SortedRows sorted;
  ExpertBank gate_up, down;
  ExpertActivation activation;
  int64_t num_rows = 0, choices = 0, hidden = 0;

  int64_t token(int64_t m) const { return sorted.order[static_cast<size_t>(m)] / choices; }
};

// The rows that an expert sees of x (or of a gradient), in the operands' type; `stride` leaves room for ranks.
template <typename Operand>
void gather(const Work& work, const Tensor& x_NC, int64_t first, int64_t rows, Operand* p_ME, int64_t stride) {
  visit_elements(x_NC, [&](const auto* x) {
    for (int64_t m = 0; m < rows; ++m) {
      const auto* row = x + work.token(first + m) * work.hidden;
      if constexpr (std::is_same_v<Operand, std::remove_cvref_t<decltype(*row)>>) std::copy_n(row, work.hidden, p_ME + m * stride);
      else if constexpr (std::is_same_v<Operand, float>) rows::to_float(row, work.hidden, p_ME + m * stride);
      else TORCH_INTERNAL_ASSERT(false, "bfloat16 operands come of bfloat16 tensors");
    }
  });
}

template <typename Operand>
void activate(const Work& work, const Tensor& h_MO, int64_t first, int64_t rows, Operand* q_ME, int64_t stride) {
  const int64_t width = h_MO.size(1), half = width / 2;
  std::vector<float> row(static_cast<size_t>(width + half));
  visit_elements(h_MO, [&](const auto* h) {
    for (int64_t m = 0; m < rows; ++m) {
      rows::to_float(h + (first + m) * width, width, row.data());
      activation_row(work.activation, row.data(), row.data() + half, half, row.data() + width);
      rows::from_float(row.data() + width, half, q_ME + m * stride);
    }
  });
}

// Sums rows m over each token's choices, in the order of the choices: y[n] = sum over k of factor * row[m(n, k)].
void combine(const Work& work, const float* rows_MC, int64_t stride, const float* factor_NK, const Tensor& y_NC) {
  std::vector<int64_t> row_of(work.sorted.order.size());
  for (size_t m = 0; m < row_of.size(); ++m) row_of[static_cast<size_t>(work.sorted.order[m])] = static_cast<int64_t>(m);
  visit_elements(y_NC, [&](auto* y) {
    at::parallel_for(0, work.num_rows, 8, [&](int64_t begin, int64_t end) {
      std::vector<float> sum(static_cast<size_t>(work.hidden));
      for (int64_t n = begin; n < end; ++n) {
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (int64_t k = 0; k < work.choices; ++k) {
          const int64_t i = n * work.choices + k;
          add_scaled_row(sum.data(), rows_MC + row_of[static_cast<size_t>(i)] * stride, work.hidden, factor_NK ? factor_NK[i] : 1.0f);
        }
        rows::from_float(sum.data(), work.hidden, y + n * work.hidden);
      }
    });
  });
}

struct ExpertsBackward : torch::autograd::Node {
  Work work;
  Tensor x_NC, weights_NK, h_MO, z_in_MR, z_out_MR;
  bool is_bf16 = false;   // the operands of its products

  std::string name() const override { return "ExpertsBackward"; }
  void release_variables() override { x_NC = weights_NK = h_MO = z_in_MR = z_out_MR = Tensor(); }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    torch::autograd::variable_list results(num_outputs());
    if (!gradients[0].defined()) return results;
    const auto dy_NC = gradients[0].contiguous();
    const int64_t num_sorted = work.num_rows * work.choices, dx_stride = scratch_row_stride(work.hidden);
    auto dweights_NK = at::zeros({work.num_rows, work.choices}, at::kFloat);
    auto gradients_of = [](const ExpertBank& bank) {
      return bank.rank() == 0 ? std::pair<Tensor, Tensor>() : std::pair(at::zeros_like(bank.lora_a_EC), at::zeros_like(bank.lora_b_ER));
    };
    auto [da_in, db_in] = gradients_of(work.gate_up);
    auto [da_out, db_out] = gradients_of(work.down);
    Scratch scratch;
    float* dx_MC = scratch.floats(num_sorted * dx_stride);
    for_experts(work.sorted, [&](int64_t expert) {
      const auto run = [&]<typename Operand>(Operand) {
        backward_of<Operand>(expert, dy_NC, dweights_NK.data_ptr<float>(), dx_MC, dx_stride, {da_in, db_in}, {da_out, db_out});
      };
      if (is_bf16) run(uint16_t{});
      else run(float{});
    });
    if (task_should_compute_output(0)) {
      results[0] = at::empty_like(x_NC);
      combine(work, dx_MC, dx_stride, nullptr, results[0]);
    }
    if (task_should_compute_output(1)) results[1] = dweights_NK;
    size_t slot = 2;
    if (da_in.defined()) results[slot++] = da_in, results[slot++] = db_in;
    if (da_out.defined()) results[slot++] = da_out, results[slot++] = db_out;
    return results;
  }

  template <typename Operand>
  void backward_of(int64_t expert, const Tensor& dy_NC, float* dweights, float* dx_MC, int64_t dx_stride, std::pair<Tensor, Tensor> in_gradients,
                   std::pair<Tensor, Tensor> out_gradients) {
    const ExpertView in(work.gate_up, expert), out(work.down, expert);
    const int64_t first = work.sorted.first[static_cast<size_t>(expert)], rows = work.sorted.count(expert), hidden = work.hidden, width = out.inputs;
    const float* weights = weights_NK.const_data_ptr<float>();
    Scratch scratch;
    auto* dy = scratch.elements<Operand>(rows * hidden);
    auto* q = scratch.elements<Operand>(rows * width);
    float* dq = scratch.floats(rows * out.extended());
    auto* dz_out = scratch.elements<Operand>(rows * out.rank);
    gather(work, dy_NC, first, rows, dy, hidden);
    activate(work, h_MO, first, rows, q, width);
    adapted_product_backward(out, rows, dy, dq, dz_out);
    // dq is still without the router's weight w: so <q, dq> is what w multiplies, <output, dy>, bias aside. Then dq and dz are weighted, and z in place of dy.
    auto* weighted_z = scratch.elements<Operand>(rows * out.rank);
    std::vector<float> row(static_cast<size_t>(std::max({width, hidden, out.rank})));
    for (int64_t m = 0; m < rows; ++m) {
      const int64_t i = work.sorted.order[static_cast<size_t>(first + m)];
      float* slope = dq + m * out.extended();
      rows::to_float(q + m * width, width, row.data());
      dweights[i] = rows::dot(row.data(), slope, width);
      if (out.bias_O) {
        rows::to_float(dy + m * hidden, hidden, row.data());
        dweights[i] += rows::dot(out.bias_O, row.data(), hidden);
      }
      rows::scale(slope, width + out.rank, weights[i]);
      if (out.rank == 0) continue;
      rows::from_float(slope + width, out.rank, dz_out + m * out.rank);
      rows::to_float(static_cast<const Operand*>(z_out_MR.const_data_ptr()) + (first + m) * out.rank, out.rank, row.data());
      rows::scale(row.data(), out.rank, weights[i]);
      rows::from_float(row.data(), out.rank, weighted_z + m * out.rank);
    }
    if (out.rank > 0) {
      product_on_one_thread<Operand>(out.rank, width, rows, {dz_out, out.rank, true}, {q, width}, out_gradients.first.data_ptr<float>() + expert * out.rank * width, width);
      product_on_one_thread<Operand>(hidden, out.rank, rows, {dy, hidden, true}, {weighted_z, out.rank},
                                     out_gradients.second.data_ptr<float>() + expert * hidden * out.rank, out.rank);
    }
    auto* dh = scratch.elements<Operand>(rows * in.outputs);
    activate_backward(first, rows, dq, out.extended(), dh);
    float* dp = scratch.floats(rows * in.extended());
    auto* dz_in = scratch.elements<Operand>(rows * in.rank);
    adapted_product_backward(in, rows, dh, dp, dz_in);
    if (in.rank > 0) {
      auto* p = scratch.elements<Operand>(rows * hidden);
      gather(work, x_NC, first, rows, p, hidden);
      product_on_one_thread<Operand>(in.rank, hidden, rows, {dz_in, in.rank, true}, {p, hidden}, in_gradients.first.data_ptr<float>() + expert * in.rank * hidden, hidden);
      product_on_one_thread<Operand>(in.outputs, in.rank, rows, {dh, in.outputs, true}, {static_cast<const Operand*>(z_in_MR.const_data_ptr()) + first * in.rank, in.rank},
                                     in_gradients.second.data_ptr<float>() + expert * in.outputs * in.rank, in.rank);
    }
    for (int64_t m = 0; m < rows; ++m) std::copy_n(dp + m * in.extended(), hidden, dx_MC + (first + m) * dx_stride);
  }

  template <typename Operand>
  void activate_backward(int64_t first, int64_t rows, const float* dq, int64_t stride, Operand* dh) {
    const int64_t width = h_MO.size(1), half = width / 2;
    std::vector<float> row(static_cast<size_t>(2 * width));
    visit_elements(h_MO, [&](const auto* h) {
      for (int64_t m = 0; m < rows; ++m) {
        rows::to_float(h + (first + m) * width, width, row.data());
        activation_row_backward(work.activation, dq + m * stride, row.data(), row.data() + half, half, row.data() + width, row.data() + width + half);
        rows::from_float(row.data() + width, width, dh + m * width);
      }
    });
  }
};

void check(const Tensor& x_NC, const Tensor& chosen_NK, const Tensor& weights_NK, const ExpertBank& gate_up, const ExpertBank& down) {
  if (x_NC.dim() != 2 || chosen_NK.dim() != 2) fail("kernels", "experts: expected x [N, C] and chosen [N, K], got {} and {}", c10::str(x_NC.sizes()), c10::str(chosen_NK.sizes()));
  const bool fit = x_NC.size(1) == gate_up.inputs() && gate_up.outputs() == 2 * down.inputs() && down.outputs() == x_NC.size(1) &&
                   gate_up.num_experts == down.num_experts;
  if (!fit) {
    fail("kernels", "experts: expected banks [2I, {}] and [{}, I] of as many experts, got [{}, {}] and [{}, {}]", x_NC.size(1), x_NC.size(1), gate_up.outputs(),
         gate_up.inputs(), down.outputs(), down.inputs());
  }
  if (chosen_NK.sizes() != weights_NK.sizes() || chosen_NK.size(0) != x_NC.size(0)) fail("kernels", "experts: expected as many choices as weights for each token");
}

}  // namespace

Tensor experts(const Tensor& x_NC, const Tensor& chosen_NK, const Tensor& weights_NK, const ExpertBank& gate_up, const ExpertBank& down,
               const ExpertActivation& activation) {
  check(x_NC, chosen_NK, weights_NK, gate_up, down);
  if (takes_kernels(x_NC, experts_have_kernels(x_NC, chosen_NK, gate_up, down))) return experts_by_kernels(x_NC, chosen_NK, weights_NK, gate_up, down, activation);
  if (!takes_fast_path(x_NC)) return experts_reference(x_NC, chosen_NK, weights_NK, gate_up, down, activation);
  Work work{sort_by_expert(chosen_NK, gate_up.num_experts), gate_up, down, activation, x_NC.size(0), chosen_NK.size(1), x_NC.size(1)};
  const int64_t num_sorted = work.num_rows * work.choices, outputs = gate_up.outputs(), o_stride = scratch_row_stride(work.hidden);
  const bool is_bf16 = operands_are_bf16(x_NC);
  const auto operand_type = is_bf16 ? at::kBFloat16 : at::kFloat;
  auto h_MO = at::empty({num_sorted, outputs}, x_NC.options().requires_grad(false));
  auto z_in_MR = at::empty({num_sorted, gate_up.rank()}, operand_type), z_out_MR = at::empty({num_sorted, down.rank()}, operand_type);
  auto y_NC = at::empty(x_NC.sizes(), x_NC.options().requires_grad(false));
  const auto router_NK = weights_NK.detach().to(at::kFloat).contiguous();
  const auto run = [&]<typename Operand>(Operand) {
    Scratch whole;
    float* o_MC = whole.floats(num_sorted * o_stride);
    for_experts(work.sorted, [&](int64_t expert) {
      const ExpertView in(work.gate_up, expert), out(work.down, expert);
      const int64_t first = work.sorted.first[static_cast<size_t>(expert)], rows = work.sorted.count(expert);
      Scratch scratch;
      auto* p = scratch.elements<Operand>(rows * in.forward_extended());
      float* h = scratch.floats(rows * outputs);
      auto* q = scratch.elements<Operand>(rows * out.forward_extended());
      gather(work, x_NC, first, rows, p, in.forward_extended());
      adapted_product(in, rows, p, static_cast<Operand*>(z_in_MR.data_ptr()) + first * in.rank, h, outputs);
      visit_elements(h_MO, [&](auto* kept) { rows::from_float(h, rows * outputs, kept + first * outputs); });
      activate(work, h_MO, first, rows, q, out.forward_extended());
      adapted_product(out, rows, q, static_cast<Operand*>(z_out_MR.data_ptr()) + first * out.rank, o_MC + first * o_stride, o_stride);
    });
    combine(work, o_MC, o_stride, router_NK.const_data_ptr<float>(), y_NC);
  };
  if (is_bf16) run(uint16_t{});
  else run(float{});
  const auto inputs = inputs_with_gradient(x_NC, weights_NK, gate_up, down);
  if (torch::autograd::compute_requires_grad(at::TensorList(inputs))) {
    auto node = std::make_shared<ExpertsBackward>();
    node->set_next_edges(torch::autograd::collect_next_edges(at::TensorList(inputs)));
    for (auto* bank : {&work.gate_up, &work.down}) *bank = detached(*bank);
    node->work = std::move(work);
    node->x_NC = x_NC.detach();
    node->weights_NK = router_NK;
    node->h_MO = h_MO;
    node->z_in_MR = z_in_MR;
    node->z_out_MR = z_out_MR;
    node->is_bf16 = is_bf16;
    torch::autograd::create_gradient_edge(y_NC, node);
  }
  return y_NC;
}

}  // namespace graft
