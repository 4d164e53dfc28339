// The CPU path. Letters: N tokens, C inputs, O outputs (of all parts), R ranks (of all parts), E = C + R the extended inner dimension.
// Operand: see operands.h.
#include <algorithm>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include "kernels/common/error.h"
#include "kernels/common/operator_path.h"
#include "kernels/device_launch/device_launch.h"
#include "kernels/elementwise/typed_rows.h"
#include "kernels/frozen_product/frozen_product.h"
#include "kernels/lora_linear/lora_linear.h"
#include "kernels/lora_linear/lora_linear_device.h"
#include "kernels/matrix_product/operands.h"
#include "kernels/quantized/small_floats.h"
#include "kernels/scratch/scratch.h"

namespace graft {
namespace {

using at::Tensor;

struct Sizes {
  int64_t num_rows = 0, inputs = 0, outputs = 0, ranks = 0;
  bool trains_whole = false;   // some part
  int64_t extended() const { return inputs + ranks; }
};

Sizes sizes_of(const Tensor& x_NC, const LinearPrologue& prologue, const std::vector<LinearPart>& parts) {
  Sizes sizes;
  sizes.num_rows = x_NC.size(0);
  sizes.inputs = prologue.gated() ? x_NC.size(1) / 2 : x_NC.size(1);
  for (const auto& part : parts) {
    if (part.weight->columns() != sizes.inputs) {
      fail("kernels", "lora_linear: expected a weight of {} columns, got {}", sizes.inputs, part.weight->columns());
    }
    sizes.outputs += part.weight->rows();
    if (part.lora_a_RC.defined()) sizes.ranks += part.lora_a_RC.size(0);
    sizes.trains_whole |= part.whole_OC.defined();
  }
  return sizes;
}

// p into the first C columns of p_NE, whose rows are `stride` apart; returns each row's inverse RMS (RMS norm only).
template <typename Operand>
Tensor run_prologue(const Tensor& x_NC, const LinearPrologue& prologue, const Sizes& sizes, Operand* p_NE, int64_t stride) {
  const int64_t inputs = sizes.inputs, width = x_NC.size(1);
  const bool norm = prologue.kind == LinearPrologue::Kind::kRmsNorm;
  auto inverse_rms_N = norm ? at::empty({sizes.num_rows}, at::kFloat) : Tensor();
  float* inverse_rms = norm ? inverse_rms_N.data_ptr<float>() : nullptr;
  const float* weight = norm ? prologue.norm_weight_C.const_data_ptr<float>() : nullptr;
  visit_elements(x_NC, [&](const auto* x) {
    at::parallel_for(0, sizes.num_rows, 16, [&](int64_t begin, int64_t end) {
      using Input = std::remove_cvref_t<decltype(*x)>;
      std::vector<float> row(width), wide(std::is_same_v<Operand, float> ? 0 : inputs);
      for (int64_t n = begin; n < end; ++n) {
        if constexpr (std::is_same_v<Input, Operand>) {
          if (prologue.kind == LinearPrologue::Kind::kNone) {
            std::copy_n(x + n * width, width, p_NE + n * stride);
            continue;
          }
        }
        float* p = wide.data();
        if constexpr (std::is_same_v<Operand, float>) p = p_NE + n * stride;
        if (prologue.kind == LinearPrologue::Kind::kNone) {
          rows::to_float(x + n * width, width, p);
        } else {
          rows::to_float(x + n * width, width, row.data());
          if (norm) {
            inverse_rms[n] = rows::rms_norm(row.data(), weight, inputs, static_cast<float>(prologue.epsilon), p);
          } else if (prologue.kind == LinearPrologue::Kind::kSwiGlu) {
            rows::swiglu(row.data(), row.data() + inputs, inputs, p);
          } else if (prologue.kind == LinearPrologue::Kind::kGeluTanhGated) {
            rows::gelu_tanh_gated(row.data(), row.data() + inputs, inputs, p);
          } else {
            rows::gelu_tanh(row.data(), inputs, p);
          }
        }
        if constexpr (!std::is_same_v<Operand, float>) rows::from_float(p, inputs, p_NE + n * stride);
      }
    });
  });
  return inverse_rms_N;
}

Tensor prologue_backward(const Tensor& x_NC, const LinearPrologue& prologue, const Sizes& sizes, const Tensor& inverse_rms_N,
                         const float* dp_NE) {
  auto dx_NC = at::empty_like(x_NC);
  const int64_t inputs = sizes.inputs, stride = sizes.extended(), width = x_NC.size(1);
  visit_elements(x_NC, [&](auto* x) {
    auto* dx = static_cast<decltype(x)>(dx_NC.data_ptr());
    at::parallel_for(0, sizes.num_rows, 16, [&](int64_t begin, int64_t end) {
      std::vector<float> row(width), drow(width);
      for (int64_t n = begin; n < end; ++n) {
        const float* dp = dp_NE + n * stride;
        if (prologue.kind == LinearPrologue::Kind::kNone) {
          rows::from_float(dp, width, dx + n * width);
          continue;
        }
        rows::to_float(x + n * width, width, row.data());
        if (prologue.kind == LinearPrologue::Kind::kRmsNorm) {
          rows::rms_norm_backward(dp, row.data(), prologue.norm_weight_C.const_data_ptr<float>(), inputs,
                                  inverse_rms_N.const_data_ptr<float>()[n], drow.data());
        } else if (prologue.kind == LinearPrologue::Kind::kSwiGlu) {
          rows::swiglu_backward(dp, row.data(), row.data() + inputs, inputs, drow.data(), drow.data() + inputs);
        } else if (prologue.kind == LinearPrologue::Kind::kGeluTanhGated) {
          rows::gelu_tanh_gated_backward(dp, row.data(), row.data() + inputs, inputs, drow.data(), drow.data() + inputs);
        } else {
          rows::gelu_tanh_backward(dp, row.data(), inputs, drow.data());
        }
        rows::from_float(drow.data(), width, dx + n * width);
      }
    });
  });
  return dx_NC;
}

std::vector<FrozenPart> frozen_parts(const std::vector<LinearPart>& parts, bool with_factors) {
  std::vector<FrozenPart> result;
  for (const auto& part : parts) {
    const bool adapted = with_factors && part.lora_a_RC.defined();
    result.push_back({part.weight, adapted ? part.lora_b_OR.const_data_ptr<float>() : nullptr, adapted ? part.lora_a_RC.size(0) : 0});
  }
  return result;
}

inline float widened(float value) { return value; }
inline float widened(uint16_t value) { return bf16_to_float(value); }
inline void narrow(float value, float& target) { target = value; }
inline void narrow(float value, uint16_t& target) { target = float_to_bf16(value); }

template <typename Operand>
void apply_dropout(const LoraDropout& dropout, const Sizes& sizes, const Operand* source, int64_t source_stride, Operand* destination,
                   int64_t destination_stride, bool accumulate) {
  const auto* keys = dropout.row_keys_N.const_data_ptr<int64_t>();
  at::parallel_for(0, sizes.num_rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t c = 0; c < sizes.inputs; ++c) {
        const float value = widened(source[n * source_stride + c]) * dropout_factor(dropout, keys[n], c);
        Operand& target = destination[n * destination_stride + c];
        narrow(accumulate ? widened(target) + value : value, target);
      }
    }
  });
}

// The factors A of all parts over each other, [R, C] in the operands' type.
template <typename Operand>
Operand* stacked_factors(Scratch& scratch, const std::vector<LinearPart>& parts, const Sizes& sizes) {
  auto* stack = scratch.elements<Operand>(sizes.ranks * sizes.inputs);
  Operand* next = stack;
  for (const auto& part : parts) {
    if (!part.lora_a_RC.defined()) continue;
    rows::from_float(part.lora_a_RC.const_data_ptr<float>(), part.lora_a_RC.numel(), next);
    next += part.lora_a_RC.numel();
  }
  return stack;
}

// Calls f(part, first output, first rank) on the parts with an adapter.
template <typename Function>
void for_adapters(const std::vector<LinearPart>& parts, const Function& f) {
  int64_t output = 0, rank = 0;
  for (const auto& part : parts) {
    if (part.lora_a_RC.defined()) {
      f(part, output, rank);
      rank += part.lora_a_RC.size(0);
    }
    output += part.weight->rows();
  }
}

struct LoraLinearBackward : torch::autograd::Node {
  Tensor x_NC, inverse_rms_N, z_NR;
  LinearPrologue prologue;
  std::vector<LinearPart> parts;
  LoraDropout dropout;
  Sizes sizes;

  std::string name() const override { return "LoraLinearBackward"; }
  void release_variables() override { x_NC = inverse_rms_N = z_NR = Tensor(); }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    torch::autograd::variable_list results(num_outputs());
    if (!gradients[0].defined()) return results;
    const auto gradient_NO = gradients[0].contiguous();
    Scratch scratch;
    if (z_NR.scalar_type() == at::kBFloat16) {
      backward<uint16_t>(results, {static_cast<const uint16_t*>(gradient_NO.const_data_ptr()), sizes.outputs});
      return results;
    }
    const int64_t dy_stride = scratch_row_stride(sizes.outputs);
    float* dy = scratch.floats(sizes.num_rows * dy_stride);
    visit_elements(gradient_NO, [&](const auto* source) {
      at::parallel_for(0, sizes.num_rows, 16, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) rows::to_float(source + n * sizes.outputs, sizes.outputs, dy + n * dy_stride);
      });
    });
    backward<float>(results, {dy, dy_stride});
    return results;
  }

  template <typename Operand>
  void backward(torch::autograd::variable_list& results, const MatrixOf<Operand>& dy) {
    const int64_t num_rows = sizes.num_rows, inputs = sizes.inputs, extended = sizes.extended();
    Scratch scratch;
    float* dp = scratch.floats(num_rows * extended);   // [dp without the adapters | dz / scale]
    frozen_product_backward(num_rows, dy.data, dy.row_stride, frozen_parts(parts, /*with_factors=*/true), dp, extended);
    if (sizes.ranks > 0 || sizes.trains_whole) {
      Operand* p_NE = scratch.elements<Operand>(num_rows * extended);
      run_prologue(x_NC, prologue, sizes, p_NE, extended);
      MatrixOf<Operand> p{p_NE, extended};
      whole_gradients(results, dy, p);
      if (dropout.probability > 0) {
        Operand* dropped = scratch.elements<Operand>(num_rows * inputs);
        apply_dropout(dropout, sizes, p.data, extended, dropped, inputs, false);
        p = {dropped, inputs};
      }
      if (sizes.ranks > 0) adapter_gradients(results, dy, dp, p);
    }
    if (task_should_compute_output(0)) results[0] = prologue_backward(x_NC, prologue, sizes, inverse_rms_N, dp);
  }

  // dW = dy^T p of the parts that are trained whole; their slots stand behind those of A and B.
  template <typename Operand>
  void whole_gradients(torch::autograd::variable_list& results, const MatrixOf<Operand>& dy, const MatrixOf<Operand>& p) {
    size_t slot = 1;
    for (const auto& part : parts) slot += part.lora_a_RC.defined() ? 2 : 0;
    int64_t output = 0;
    for (const auto& part : parts) {
      const int64_t part_rows = part.weight->rows();
      if (part.whole_OC.defined()) {
        auto dw_OC = at::empty({part_rows, sizes.inputs}, at::kFloat);
        operand_product<Operand>(part_rows, sizes.inputs, sizes.num_rows, {dy.data + output, dy.row_stride, true}, p, dw_OC.template data_ptr<float>(), sizes.inputs);
        results[slot++] = dw_OC;
      }
      output += part_rows;
    }
  }

  template <typename Operand>
  void adapter_gradients(torch::autograd::variable_list& results, const MatrixOf<Operand>& dy, float* dp, const MatrixOf<Operand>& p) {
    const int64_t num_rows = sizes.num_rows, inputs = sizes.inputs, ranks = sizes.ranks, extended = sizes.extended();
    Scratch scratch;
    Operand* dz = scratch.elements<Operand>(num_rows * ranks);
    std::vector<float> scales;   // of each rank column
    for_adapters(parts, [&](const LinearPart& part, int64_t, int64_t) { scales.resize(scales.size() + part.lora_a_RC.size(0), static_cast<float>(part.scale)); });
    at::parallel_for(0, num_rows, 64, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        float* row = dp + n * extended + inputs;
        for (int64_t r = 0; r < ranks; ++r) row[r] *= scales[r];
        rows::from_float(row, ranks, dz + n * ranks);
      }
    });
    float* da = scratch.floats(ranks * inputs);
    operand_product<Operand>(ranks, inputs, num_rows, {dz, ranks, true}, p, da, inputs);
    size_t slot = 1;
    for_adapters(parts, [&](const LinearPart& part, int64_t output, int64_t rank) {
      const int64_t part_rank = part.lora_a_RC.size(0), part_rows = part.weight->rows();
      auto da_RC = at::empty({part_rank, inputs}, at::kFloat), db_OR = at::empty({part_rows, part_rank}, at::kFloat);
      std::copy_n(da + rank * inputs, da_RC.numel(), da_RC.data_ptr<float>());
      // z already carries the scale. Few rows of z over the many of dy: the transpose of what is wanted, which is small.
      Scratch own;
      float* db_RO = own.floats(part_rank * part_rows);
      operand_product<Operand>(part_rank, part_rows, num_rows, {static_cast<const Operand*>(z_NR.const_data_ptr()) + rank, ranks, true},
                       {dy.data + output, dy.row_stride}, db_RO, part_rows);
      float* db = db_OR.data_ptr<float>();
      at::parallel_for(0, part_rows, 256, [&](int64_t begin, int64_t end) {
        for (int64_t o = begin; o < end; ++o) {
          for (int64_t r = 0; r < part_rank; ++r) db[o * part_rank + r] = db_RO[r * part_rows + o];
        }
      });
      results[slot] = da_RC;
      results[slot + 1] = db_OR;
      slot += 2;
    });
    if (!task_should_compute_output(0) || adapters_are_merged(parts, dropout)) return;
    // dp += scale * dz A (through the mask when there is dropout).
    const MatrixOf<Operand> factors{stacked_factors<Operand>(scratch, parts, sizes), inputs};
    if (dropout.probability == 0) {
      operand_product<Operand>(num_rows, inputs, ranks, {dz, ranks}, factors, dp, extended, /*accumulate=*/true);
      return;
    }
    float* through_adapter = scratch.floats(num_rows * inputs);
    operand_product<Operand>(num_rows, inputs, ranks, {dz, ranks}, factors, through_adapter, inputs);
    apply_dropout(dropout, sizes, through_adapter, inputs, dp, extended, true);
  }
};

// y into y_NO; returns z, scaled, in the operands' type, and each row's inverse RMS.
template <typename Operand>
std::pair<Tensor, Tensor> forward(const Tensor& x_NC, const LinearPrologue& prologue, const std::vector<LinearPart>& parts, const LoraDropout& dropout,
                                  const Sizes& sizes, Tensor& y_NO) {
  const bool merged = adapters_are_merged(parts, dropout);   // then z is only kept for backward
  const int64_t num_rows = sizes.num_rows, inputs = sizes.inputs, ranks = sizes.ranks, extended = merged ? inputs : sizes.extended();
  Scratch scratch;
  Operand* p = scratch.elements<Operand>(num_rows * extended);
  auto inverse_rms_N = run_prologue(x_NC, prologue, sizes, p, extended);
  auto z_NR = at::empty({num_rows, ranks}, kOperandType<Operand>);
  if (ranks > 0) {
    MatrixOf<Operand> input{p, extended};
    if (dropout.probability > 0) {
      Operand* dropped = scratch.elements<Operand>(num_rows * inputs);
      apply_dropout(dropout, sizes, p, extended, dropped, inputs, false);
      input = {dropped, inputs};
    }
    float* z32 = scratch.floats(num_rows * ranks);
    operand_product<Operand>(num_rows, ranks, inputs, input, {stacked_factors<Operand>(scratch, parts, sizes), inputs, true}, z32, ranks);
    auto* z = static_cast<Operand*>(z_NR.data_ptr());
    for_adapters(parts, [&](const LinearPart& part, int64_t, int64_t rank) {
      for (int64_t n = 0; n < num_rows; ++n) rows::scale(z32 + n * ranks + rank, part.lora_a_RC.size(0), static_cast<float>(part.scale));
    });
    rows::from_float(z32, num_rows * ranks, z);
    for (int64_t n = 0; !merged && n < num_rows; ++n) std::copy_n(z + n * ranks, ranks, p + n * extended + inputs);
  }
  const auto frozen = frozen_parts(parts, !merged);
  const bool has_bias = std::any_of(parts.begin(), parts.end(), [](const LinearPart& part) { return part.bias_O.defined(); });
  std::vector<float> bias(has_bias ? static_cast<size_t>(sizes.outputs) : 0);   // zeros for parts without one
  int64_t output = 0;
  for (const auto& part : parts) {
    if (part.bias_O.defined()) std::copy_n(part.bias_O.const_data_ptr<float>(), part.weight->rows(), bias.data() + output);
    output += part.weight->rows();
  }
  if (y_NO.scalar_type() == at::kBFloat16) {
    frozen_product_to_bf16(num_rows, p, extended, frozen, has_bias ? bias.data() : nullptr, static_cast<uint16_t*>(y_NO.data_ptr()), sizes.outputs);
    return {z_NR, inverse_rms_N};
  }
  float* y = y_NO.data_ptr<float>();
  frozen_product(num_rows, p, extended, frozen, y, sizes.outputs);
  for (int64_t n = 0; has_bias && n < num_rows; ++n) rows::add(y + n * sizes.outputs, bias.data(), sizes.outputs);
  return {z_NR, inverse_rms_N};
}

}  // namespace

Tensor lora_linear(const Tensor& x_NC, const LinearPrologue& prologue, const std::vector<LinearPart>& parts, const LoraDropout& dropout) {
  const auto sizes = sizes_of(x_NC, prologue, parts);
  if (takes_kernels(x_NC, lora_linear_has_kernels(x_NC, parts))) return lora_linear_by_kernels(x_NC, prologue, parts, dropout);
  if (!takes_fast_path(x_NC)) return lora_linear_reference(x_NC, prologue, parts, dropout);
  auto y_NO = at::empty({sizes.num_rows, sizes.outputs}, x_NC.options().requires_grad(false));
  const auto run = operands_are_bf16(x_NC) ? forward<uint16_t> : forward<float>;
  const auto [z_NR, inverse_rms_N] = run(x_NC, prologue, parts, dropout, sizes, y_NO);
  std::vector<Tensor> inputs_with_gradient = {x_NC};
  for (const auto& part : parts) {
    if (part.lora_a_RC.defined()) inputs_with_gradient.insert(inputs_with_gradient.end(), {part.lora_a_RC, part.lora_b_OR});
  }
  for (const auto& part : parts) {
    if (part.whole_OC.defined()) inputs_with_gradient.push_back(part.whole_OC);
  }
  if (torch::autograd::compute_requires_grad(at::TensorList(inputs_with_gradient))) {
    auto node = std::make_shared<LoraLinearBackward>();
    node->set_next_edges(torch::autograd::collect_next_edges(at::TensorList(inputs_with_gradient)));
    node->x_NC = x_NC.detach();
    node->inverse_rms_N = inverse_rms_N;
    node->z_NR = z_NR;
    node->prologue = prologue;
    node->parts = parts;
    for (auto& part : node->parts) {   // detached: a node must not hold leaves of its own graph
      if (part.lora_a_RC.defined()) {
        part.lora_a_RC = part.lora_a_RC.detach();
        part.lora_b_OR = part.lora_b_OR.detach();
      }
      if (part.whole_OC.defined()) part.whole_OC = part.whole_OC.detach();
    }
    node->dropout = dropout;
    node->sizes = sizes;
    torch::autograd::create_gradient_edge(y_NO, node);
  }
  return y_NO;
}

}  // namespace graft
