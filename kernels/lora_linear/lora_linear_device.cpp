#include "kernels/lora_linear/lora_linear_device.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include "kernels/device_launch/device_launch.h"
#include "kernels/device_launch/row_type.h"
#include "kernels/gated_activation/gated_activation.h"
#include "kernels/lora_linear/lora_windows.h"
#include "kernels/quantized_product/quantized_product.h"
#include "kernels/rms_norm/rms_norm.h"

namespace graft {
namespace {

using at::Tensor;

void check(const char* argument, size_t part, const Tensor& tensor, at::ScalarType type, at::IntArrayRef sizes, c10::Device device) {
  if (tensor.scalar_type() == type && tensor.sizes() == sizes && tensor.device() == device) return;
  fail("kernels", "lora_linear: expected {} of part {} as {} [{}] on {}, got {} [{}] on {}", argument, part, c10::toString(type), fmt::join(sizes, ", "),
       device.str(), c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes(), ", "), tensor.device().str());
}

void check_arguments(const Tensor& x_NC, const LinearPrologue& prologue, const std::vector<LinearPart>& parts, const LoraDropout& dropout) {
  if (x_NC.dim() != 2) fail("kernels", "lora_linear: expected x [N, C], got {} dimensions", x_NC.dim());
  const auto device = x_NC.device();
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto& part = parts[i];
    const int64_t inputs = part.weight->columns(), outputs = part.weight->rows();
    if (part.bias_O.defined()) check("bias", i, part.bias_O, at::kFloat, {outputs}, device);
    if (part.lora_a_RC.defined() != part.lora_b_OR.defined()) fail("kernels", "lora_linear: expected both factors of part {} or none, got one", i);
    if (!part.lora_a_RC.defined()) continue;
    const int64_t ranks = part.lora_a_RC.dim() == 2 ? part.lora_a_RC.size(0) : 1;
    check("A", i, part.lora_a_RC, at::kFloat, {std::max<int64_t>(1, ranks), inputs}, device);
    check("B", i, part.lora_b_OR, at::kFloat, {outputs, ranks}, device);
  }
  if (prologue.kind == LinearPrologue::Kind::kRmsNorm) check("the norm's weight", 0, prologue.norm_weight_C, at::kFloat, {x_NC.size(1)}, device);
  if (!(dropout.probability >= 0 && dropout.probability < 1)) {
    fail("kernels", "lora_linear: expected a dropout of at least 0 and below 1, got {}", dropout.probability);
  }
  if (dropout.probability > 0) check("the row keys of dropout", 0, dropout.row_keys_N, at::kLong, {x_NC.size(0)}, dropout.row_keys_N.device());
}

Tensor prologue_by_kernels(const Tensor& x_NC, const LinearPrologue& prologue) {
  using Kind = LinearPrologue::Kind;
  using Activation = GatedActivation::Kind;
  switch (prologue.kind) {
    case Kind::kNone: return x_NC;
    case Kind::kRmsNorm: return rms_norm(x_NC, prologue.norm_weight_C, prologue.epsilon);
    case Kind::kSwiGlu: return gated_activation(x_NC, {Activation::kSwiGlu});
    case Kind::kGeluTanhGated: return gated_activation(x_NC, {Activation::kGeluTanhGated});
    case Kind::kGeluTanh: return gated_activation(x_NC, {Activation::kGeluTanh});
  }
  fail("kernels", "lora_linear: expected a known prologue, got {}", static_cast<int>(prologue.kind));
}

std::vector<LinearPart> without_adapters(std::vector<LinearPart> parts) {
  for (auto& part : parts) part.lora_a_RC = part.lora_b_OR = Tensor();
  return parts;
}

// A layer for the kernels, and the tensors to which it points.
class KernelLayer {
 public:
  KernelLayer(const Tensor& p_NC, const std::vector<LinearPart>& parts, const LoraDropout& dropout) : like_(p_NC) {
    layer_.num_parts = static_cast<int>(parts.size());
    layer_.type = row_type(p_NC);
    layer_.num_rows = p_NC.size(0);
    layer_.inputs = p_NC.size(1);
    for (size_t i = 0; i < parts.size(); ++i) {
      auto& part = layer_.parts[i];
      part.first_output = layer_.outputs;
      part.outputs = parts[i].weight->rows();
      part.first_rank = layer_.ranks;
      layer_.outputs += part.outputs;
      if (parts[i].bias_O.defined()) part.bias_O = held(parts[i].bias_O);
      if (!parts[i].lora_a_RC.defined()) continue;
      part.ranks = static_cast<int>(parts[i].lora_a_RC.size(0));
      part.scale = static_cast<float>(parts[i].scale);
      part.a_RC = held(parts[i].lora_a_RC);
      part.b_OR = held(parts[i].lora_b_OR);
      part.padded_ranks = static_cast<int>(cuda::lora_padded(part.ranks));
      layer_.ranks += part.padded_ranks;
      layer_.b_stride = std::max(layer_.b_stride, part.padded_ranks);
    }
    if (!adapted()) return;
    if (dropout.probability > 0) {
      held_.push_back(for_kernels(dropout.row_keys_N.to(p_NC.device())));
      const auto factor = static_cast<float>(1 / (1 - dropout.probability));
      layer_.mask = {held_.back().const_data_ptr<int64_t>(), dropout.key, lora_threshold(dropout.probability), factor};
    }
    held_.push_back(at::empty({layer_.ranks * cuda::lora_padded(layer_.inputs)}, like_.options()));
    layer_.a_RC = held_.back().data_ptr();
    held_.push_back(at::empty({layer_.outputs * layer_.b_stride}, like_.options()));
    layer_.b_OR = held_.back().data_ptr();
    launch_on(like_, "lora_linear", cuda::LoraFactors{layer_});
  }

  bool adapted() const { return layer_.ranks > 0; }

  // z. Undefined without adapters.
  Tensor shrink(const Tensor& p_NC) const {
    if (!adapted()) return {};
    auto z_NR = at::empty({layer_.num_rows, layer_.ranks}, like_.options());
    for (const auto& window : lora_windows(LoraPass::kShrink, layer_)) {
      auto partials = floats(lora_row_partials(LoraPass::kShrink, layer_, window));
      launch_on(like_, "lora_linear", cuda::LoraShrink{layer_, window, p_NC.const_data_ptr(), z_NR.data_ptr(), partials.data_ptr<float>()});
    }
    return z_NR;
  }

  void expand(const Tensor& z_NR, Tensor& y_NO) const {
    for (const auto& window : lora_windows(LoraPass::kExpand, layer_)) {
      launch_on(like_, "lora_linear", cuda::LoraExpand{layer_, window, z_NR.defined() ? z_NR.const_data_ptr() : nullptr, y_NO.data_ptr()});
    }
  }

  // Gradients of A and B of the parts with adapters, in that order; writes their part of dp where it is defined.
  std::vector<Tensor> backward(const Tensor& dy_NO, const Tensor& z_NR, const Tensor& p_NC, Tensor& dp_NC) {
    std::vector<Tensor> gradients;
    const auto float32 = like_.options().dtype(at::kFloat);
    for (auto& part : layer_.parts) {
      if (part.ranks == 0) continue;
      gradients.push_back(at::empty({part.ranks, layer_.inputs}, float32));
      part.a_gradient_RC = gradients.back().data_ptr<float>();
      gradients.push_back(at::empty({part.outputs, part.ranks}, float32));
      part.b_gradient_OR = gradients.back().data_ptr<float>();
    }
    auto dz_NR = at::empty_like(z_NR);
    for (const auto& window : lora_windows(LoraPass::kExpandBackward, layer_)) {
      auto z_partials = floats(lora_row_partials(LoraPass::kExpandBackward, layer_, window));
      auto b_partials = floats(lora_factor_partials(LoraPass::kExpandBackward, layer_, window));
      launch_on(like_, "lora_linear backward",
                cuda::LoraExpandBackward{layer_, window, dy_NO.const_data_ptr(), z_NR.const_data_ptr(), dz_NR.data_ptr(),
                                         z_partials.data_ptr<float>(), b_partials.data_ptr<float>()});
    }
    for (const auto& window : lora_windows(LoraPass::kShrinkBackward, layer_)) {
      auto partials = floats(lora_factor_partials(LoraPass::kShrinkBackward, layer_, window));
      void* dp = dp_NC.defined() ? dp_NC.data_ptr() : nullptr;
      launch_on(like_, "lora_linear backward",
                cuda::LoraShrinkBackward{layer_, window, dz_NR.const_data_ptr(), p_NC.const_data_ptr(), dp, partials.data_ptr<float>()});
    }
    return gradients;
  }

 private:
  const float* held(const Tensor& tensor) {
    held_.push_back(for_kernels(tensor.detach()));
    return held_.back().const_data_ptr<float>();
  }
  Tensor floats(int64_t count) const { return at::empty({count}, like_.options().dtype(at::kFloat)); }

  Tensor like_;
  std::vector<Tensor> held_;
  cuda::LoraLayer layer_ = {};
};

struct KernelLoraLinearBackward : torch::autograd::Node {
  Tensor x_NC, z_NR;
  LinearPrologue prologue;
  std::vector<LinearPart> parts;
  LoraDropout dropout;

  std::string name() const override { return "KernelLoraLinearBackward"; }
  void release_variables() override { x_NC = z_NR = Tensor(); }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    torch::autograd::variable_list results(num_outputs());
    if (!gradients[0].defined()) return results;
    const auto dy_NO = for_kernels(gradients[0]);
    // The prologue again, recorded where its own gradient is asked for.
    const bool wanted = task_should_compute_output(0), recorded = wanted && prologue.kind != LinearPrologue::Kind::kNone;
    Tensor x = x_NC, p_NC;
    {
      const at::AutoGradMode mode(recorded);
      if (recorded) x = x_NC.detach().requires_grad_();
      p_NC = for_kernels(prologue_by_kernels(x, prologue));
    }
    const auto p = p_NC.detach();
    Tensor dp_NC = wanted ? at::empty_like(p) : Tensor();
    KernelLayer layer(p, parts, dropout);
    const bool merged = adapters_are_merged(parts, dropout);
    if (layer.adapted()) {
      Tensor none;
      auto of_factors = layer.backward(dy_NO, z_NR, p, merged ? none : dp_NC);
      std::move(of_factors.begin(), of_factors.end(), results.begin() + 1);
    }
    int64_t output = 0;
    for (const auto& part : parts) {
      if (wanted) frozen_matmul_transposed(dy_NO.narrow(1, output, part.weight->rows()), *part.weight, dp_NC, (layer.adapted() && !merged) || output > 0);
      output += part.weight->rows();
    }
    if (wanted) results[0] = recorded ? torch::autograd::grad({p_NC}, {x}, {dp_NC})[0] : dp_NC;
    return results;
  }
};

}  // namespace

bool lora_linear_has_kernels(const Tensor& x_NC, const std::vector<LinearPart>& parts) {
  const auto type = x_NC.scalar_type();
  if (std::any_of(parts.begin(), parts.end(), [](const LinearPart& part) { return part.whole_OC.defined(); })) return false;   // plain ATen
  return parts.size() <= static_cast<size_t>(cuda::kMostLoraParts) && (type == at::kFloat || type == at::kBFloat16 || type == at::kHalf);
}

Tensor lora_linear_by_kernels(const Tensor& x_NC, const LinearPrologue& prologue, const std::vector<LinearPart>& parts, const LoraDropout& dropout) {
  check_arguments(x_NC, prologue, parts, dropout);
  std::vector<Tensor> inputs_with_gradient = {x_NC};
  int64_t outputs = 0;
  for (const auto& part : parts) {
    outputs += part.weight->rows();
    if (part.lora_a_RC.defined()) inputs_with_gradient.insert(inputs_with_gradient.end(), {part.lora_a_RC, part.lora_b_OR});
  }
  const bool has_gradient = torch::autograd::compute_requires_grad(at::TensorList(inputs_with_gradient));
  Tensor x = x_NC.detach(), y_NO, z_NR;
  {
    const at::NoGradGuard no_gradient;
    const auto p_NC = for_kernels(prologue_by_kernels(x, prologue));
    y_NO = at::empty({p_NC.size(0), outputs}, p_NC.options());
    const KernelLayer layer(p_NC, parts, dropout);
    z_NR = layer.shrink(p_NC);
    const bool merged = adapters_are_merged(parts, dropout);
    if (merged) KernelLayer(p_NC, without_adapters(parts), {}).expand({}, y_NO);   // the biases
    else layer.expand(z_NR, y_NO);
    int64_t output = 0;
    for (const auto& part : parts) {
      auto y_of_part = y_NO.narrow(1, output, part.weight->rows());
      frozen_matmul(p_NC, *part.weight, y_of_part, part.bias_O.defined() || (part.lora_a_RC.defined() && !merged));
      output += part.weight->rows();
    }
  }
  if (has_gradient) {
    auto node = std::make_shared<KernelLoraLinearBackward>();
    node->set_next_edges(torch::autograd::collect_next_edges(at::TensorList(inputs_with_gradient)));
    node->x_NC = x;
    node->z_NR = z_NR;
    node->prologue = prologue;
    node->parts = parts;
    for (auto& part : node->parts) {   // detached: a node must not hold leaves of its own graph
      if (!part.lora_a_RC.defined()) continue;
      part.lora_a_RC = part.lora_a_RC.detach();
      part.lora_b_OR = part.lora_b_OR.detach();
    }
    node->dropout = dropout;
    torch::autograd::create_gradient_edge(y_NO, node);
  }
  return y_NO;
}

}  // namespace graft
