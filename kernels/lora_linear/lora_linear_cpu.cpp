// The CPU path. Letters: N tokens, C inputs, O outputs (of all parts), R ranks (of all parts), E = C + R the extended inner dimension.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include "kernels/common/error.h"
#include "kernels/common/operator_path.h"
#include "kernels/elementwise/typed_rows.h"
#include "kernels/frozen_product/frozen_product.h"
#include "kernels/lora_linear/lora_linear.h"
#include "kernels/matrix_product/matrix_product.h"
#include "kernels/scratch/scratch.h"

namespace graft {
namespace {

using at::Tensor;

struct Sizes {
  int64_t num_rows = 0, inputs = 0, outputs = 0, ranks = 0;
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
  }
  return sizes;
}

// p into the first C columns of p_NE; returns each row's inverse RMS (RMS norm only).
Tensor run_prologue(const Tensor& x_NC, const LinearPrologue& prologue, const Sizes& sizes, float* p_NE) {
  const int64_t inputs = sizes.inputs, stride = sizes.extended(), width = x_NC.size(1);
  const bool norm = prologue.kind == LinearPrologue::Kind::kRmsNorm;
  auto inverse_rms_N = norm ? at::empty({sizes.num_rows}, at::kFloat) : Tensor();
  float* inverse_rms = norm ? inverse_rms_N.data_ptr<float>() : nullptr;
  const float* weight = norm ? prologue.norm_weight_C.const_data_ptr<float>() : nullptr;
  visit_elements(x_NC, [&](const auto* x) {
    at::parallel_for(0, sizes.num_rows, 16, [&](int64_t begin, int64_t end) {
      std::vector<float> row(width);
      for (int64_t n = begin; n < end; ++n) {
        float* p = p_NE + n * stride;
        if (prologue.kind == LinearPrologue::Kind::kNone) {
          rows::to_float(x + n * width, width, p);
          continue;
        }
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

std::vector<FrozenPart> frozen_parts(const std::vector<LinearPart>& parts) {
  std::vector<FrozenPart> result;
  for (const auto& part : parts) {
    const bool adapted = part.lora_a_RC.defined();
    result.push_back({part.weight, adapted ? part.lora_b_OR.const_data_ptr<float>() : nullptr, adapted ? part.lora_a_RC.size(0) : 0});
  }
  return result;
}

void apply_dropout(const LoraDropout& dropout, const Sizes& sizes, const float* source, int64_t source_stride, float* destination,
                   int64_t destination_stride, bool accumulate) {
  const auto* keys = dropout.row_keys_N.const_data_ptr<int64_t>();
  at::parallel_for(0, sizes.num_rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t c = 0; c < sizes.inputs; ++c) {
        const float value = source[n * source_stride + c] * dropout_factor(dropout, keys[n], c);
        float& target = destination[n * destination_stride + c];
        target = accumulate ? target + value : value;
      }
    }
  });
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
    const auto& gradient_NO = gradients[0];
    if (!gradient_NO.defined()) return results;
    const int64_t num_rows = sizes.num_rows, inputs = sizes.inputs, extended = sizes.extended();
    const int64_t dy_stride = scratch_row_stride(sizes.outputs);
    Scratch scratch;
    float* dy = scratch.floats(num_rows * dy_stride);
    visit_elements(gradient_NO.contiguous(), [&](const auto* source) {
      at::parallel_for(0, num_rows, 16, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) rows::to_float(source + n * sizes.outputs, sizes.outputs, dy + n * dy_stride);
      });
    });
    float* dp = scratch.floats(num_rows * extended);   // [dp without the adapters | dz / scale]
    frozen_product_backward(num_rows, dy, dy_stride, frozen_parts(parts), dp, extended);
    if (sizes.ranks > 0) {
      float* p_NE = scratch.floats(num_rows * extended);
      run_prologue(x_NC, prologue, sizes, p_NE);
      Matrix p{p_NE, extended};
      if (dropout.probability > 0) {
        float* dropped = scratch.floats(num_rows * inputs);
        apply_dropout(dropout, sizes, p.data, extended, dropped, inputs, false);
        p = {dropped, inputs};
      }
      adapter_gradients(results, {dy, dy_stride}, dp, p);
    }
    if (task_should_compute_output(0)) results[0] = prologue_backward(x_NC, prologue, sizes, inverse_rms_N, dp);
    return results;
  }

  void adapter_gradients(torch::autograd::variable_list& results, const Matrix& dy, float* dp, const Matrix& p) {
    const int64_t num_rows = sizes.num_rows, inputs = sizes.inputs, extended = sizes.extended();
    const float* z = z_NR.const_data_ptr<float>();
    int64_t output = 0, rank = 0;
    size_t slot = 1;
    for (const auto& part : parts) {
      const int64_t part_rows = part.weight->rows();
      if (part.lora_a_RC.defined()) {
        const int64_t part_rank = part.lora_a_RC.size(0);
        const float scale = static_cast<float>(part.scale);
        const Matrix dz{dp + inputs + rank, extended, /*transposed=*/true};
        auto da_RC = at::empty({part_rank, inputs}, at::kFloat), db_OR = at::empty({part_rows, part_rank}, at::kFloat);
        matrix_product(part_rank, inputs, num_rows, dz, p, da_RC.data_ptr<float>(), inputs, scale);
        // z already carries the scale.
        matrix_product(part_rows, part_rank, num_rows, {dy.data + output, dy.row_stride, true}, {z + rank, sizes.ranks},
                       db_OR.data_ptr<float>(), part_rank);
        results[slot] = da_RC;
        results[slot + 1] = db_OR;
        slot += 2;
        rank += part_rank;
      }
      output += part_rows;
    }
    if (!task_should_compute_output(0)) return;
    // dp += scale * dz A, part by part (through the mask when there is dropout).
    Scratch scratch;
    float* through_adapter = dropout.probability > 0 ? scratch.floats(num_rows * inputs) : nullptr;
    if (through_adapter) std::fill(through_adapter, through_adapter + num_rows * inputs, 0.0f);
    rank = 0;
    for (const auto& part : parts) {
      if (!part.lora_a_RC.defined()) continue;
      const int64_t part_rank = part.lora_a_RC.size(0);
      float* target = through_adapter ? through_adapter : dp;
      matrix_product(num_rows, inputs, part_rank, {dp + inputs + rank, extended}, {part.lora_a_RC.const_data_ptr<float>(), inputs}, target,
                     through_adapter ? inputs : extended, static_cast<float>(part.scale), 1);
      rank += part_rank;
    }
    if (through_adapter) apply_dropout(dropout, sizes, through_adapter, inputs, dp, extended, true);
  }
};

}  // namespace

Tensor lora_linear(const Tensor& x_NC, const LinearPrologue& prologue, const std::vector<LinearPart>& parts, const LoraDropout& dropout) {
  const auto sizes = sizes_of(x_NC, prologue, parts);
  if (!takes_fast_path(x_NC)) return lora_linear_reference(x_NC, prologue, parts, dropout);
  const int64_t num_rows = sizes.num_rows, inputs = sizes.inputs, extended = sizes.extended();
  Scratch scratch;
  float* p = scratch.floats(num_rows * extended);
  auto inverse_rms_N = run_prologue(x_NC, prologue, sizes, p);
  Tensor z_NR;
  if (sizes.ranks > 0) {
    z_NR = at::empty({num_rows, sizes.ranks}, at::kFloat);
    Matrix input{p, extended};
    if (dropout.probability > 0) {
      float* dropped = scratch.floats(num_rows * inputs);
      apply_dropout(dropout, sizes, p, extended, dropped, inputs, false);
      input = {dropped, inputs};
    }
    int64_t rank = 0;
    for (const auto& part : parts) {
      if (!part.lora_a_RC.defined()) continue;
      const int64_t part_rank = part.lora_a_RC.size(0);
      matrix_product(num_rows, part_rank, inputs, input, {part.lora_a_RC.const_data_ptr<float>(), inputs, true},
                     z_NR.data_ptr<float>() + rank, sizes.ranks, static_cast<float>(part.scale));
      rank += part_rank;
    }
    const float* z = z_NR.const_data_ptr<float>();
    for (int64_t n = 0; n < num_rows; ++n) std::copy(z + n * sizes.ranks, z + (n + 1) * sizes.ranks, p + n * extended + inputs);
  }
  auto y_NO = at::empty({num_rows, sizes.outputs}, x_NC.options().requires_grad(false));
  const bool in_place = x_NC.scalar_type() == at::kFloat;
  const int64_t y_stride = in_place ? sizes.outputs : scratch_row_stride(sizes.outputs);
  float* y32 = in_place ? y_NO.data_ptr<float>() : scratch.floats(num_rows * y_stride);
  frozen_product(num_rows, p, extended, frozen_parts(parts), y32, y_stride);
  int64_t output = 0;
  for (const auto& part : parts) {
    if (part.bias_O.defined()) {
      const float* bias = part.bias_O.const_data_ptr<float>();
      for (int64_t n = 0; n < num_rows; ++n) rows::add(y32 + n * y_stride + output, bias, part.weight->rows());
    }
    output += part.weight->rows();
  }
  if (!in_place) {
    auto* target = static_cast<uint16_t*>(y_NO.data_ptr());
    at::parallel_for(0, num_rows, 16, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) rows::from_float(y32 + n * y_stride, sizes.outputs, target + n * sizes.outputs);
    });
  }
  std::vector<Tensor> inputs_with_gradient = {x_NC};
  for (const auto& part : parts) {
    if (part.lora_a_RC.defined()) inputs_with_gradient.insert(inputs_with_gradient.end(), {part.lora_a_RC, part.lora_b_OR});
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
    }
    node->dropout = dropout;
    node->sizes = sizes;
    torch::autograd::create_gradient_edge(y_NO, node);
  }
  return y_NO;
}

}  // namespace graft
