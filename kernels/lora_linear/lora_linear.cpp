#include "kernels/lora_linear/lora_linear.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

#include "kernels/common/error.h"
#include "kernels/elementwise/typed_rows.h"

namespace graft {

float dropout_factor(const LoraDropout& dropout, int64_t row_key, int64_t column) {
  // SplitMix64 over the three counters (Steele et al. 2014).
  uint64_t bits = dropout.key + 0x9e3779b97f4a7c15u * (static_cast<uint64_t>(row_key) * 0xd1342543de82ef95u + static_cast<uint64_t>(column) + 1);
  bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
  bits ^= bits >> 31;
  const double uniform = static_cast<double>(bits >> 11) * 0x1p-53;
  return uniform < dropout.probability ? 0.0f : static_cast<float>(1 / (1 - dropout.probability));
}

namespace {

// x >> count of an unsigned number, in int64.
at::Tensor shifted_right(const at::Tensor& x, int64_t count) {
  return at::bitwise_and(at::bitwise_right_shift(x, at::Scalar(count)), at::Scalar((int64_t{1} << (64 - count)) - 1));
}

at::Scalar as_signed(uint64_t value) { return static_cast<int64_t>(value); }   // products wrap alike

}  // namespace

at::Tensor linear_prologue_reference(const at::Tensor& x_NC, const LinearPrologue& prologue) {
  if (prologue.kind == LinearPrologue::Kind::kNone) return x_NC;
  const auto wide = wide_type(x_NC.scalar_type());
  if (prologue.kind == LinearPrologue::Kind::kRmsNorm) {
    const auto x = x_NC.to(wide);
    return (x * at::rsqrt(x.square().mean(-1, true) + prologue.epsilon) * prologue.norm_weight_C.to(wide)).to(x_NC.scalar_type());
  }
  if (!prologue.gated()) return at::gelu(x_NC.to(wide), "tanh").to(x_NC.scalar_type());
  const auto halves = x_NC.chunk(2, -1);
  const auto gate = halves[0].to(wide);
  const auto active = prologue.kind == LinearPrologue::Kind::kSwiGlu ? at::silu(gate) : at::gelu(gate, "tanh");
  return (active * halves[1].to(wide)).to(x_NC.scalar_type());
}

at::Tensor dropout_mask(const LoraDropout& dropout, int64_t columns, c10::Device device) {
  const auto row_N1 = (dropout.row_keys_N.to(device) * as_signed(0xd1342543de82ef95u)).unsqueeze(1);
  const auto column_C = at::arange(1, columns + 1, at::TensorOptions(at::kLong).device(device));
  auto bits = (row_N1 + column_C) * as_signed(0x9e3779b97f4a7c15u) + as_signed(dropout.key);
  bits = at::bitwise_xor(bits, shifted_right(bits, 30)) * as_signed(0xbf58476d1ce4e5b9u);
  bits = at::bitwise_xor(bits, shifted_right(bits, 27)) * as_signed(0x94d049bb133111ebu);
  bits = at::bitwise_xor(bits, shifted_right(bits, 31));
  // u * 2^-53 < p of dropout_factor, in whole numbers.
  const auto kept = at::ge(shifted_right(bits, 11), static_cast<int64_t>(std::ceil(dropout.probability * 0x1p53)));
  return kept.to(at::kFloat) * static_cast<float>(1 / (1 - dropout.probability));
}

bool adapters_are_merged(const std::vector<LinearPart>& parts, const LoraDropout& dropout) {
  const auto adapted = [](const LinearPart& part) { return part.lora_a_RC.defined(); };
  const auto first = std::find_if(parts.begin(), parts.end(), adapted);
  if (first == parts.end()) return false;
  const bool merged = first->merged;
  if (std::any_of(first, parts.end(), [&](const LinearPart& part) { return adapted(part) && part.merged != merged; })) {
    fail("kernels", "lora_linear: expected all weights with an adapter to hold its product, or none, got both");
  }
  if (merged && dropout.probability > 0) fail("kernels", "lora_linear: expected no dropout where weights hold the adapters' products, got {}", dropout.probability);
  return merged;
}

at::Tensor lora_linear_reference(const at::Tensor& x_NC, const LinearPrologue& prologue, const std::vector<LinearPart>& parts,
                                 const LoraDropout& dropout) {
  const auto type = x_NC.scalar_type(), wide = wide_type(type);
  const auto p_NC = linear_prologue_reference(x_NC, prologue);
  at::Tensor dropped_NC = p_NC;
  if (dropout.probability > 0) dropped_NC = (p_NC.to(wide) * dropout_mask(dropout, p_NC.size(1), x_NC.device()).to(wide)).to(type);
  const bool merged = adapters_are_merged(parts, dropout);
  std::vector<at::Tensor> outputs;
  for (const auto& part : parts) {
    auto y_NO = at::matmul(p_NC, part.weight->matrix(type, x_NC.device()).t()).to(wide);
    if (part.bias_O.defined()) y_NO = y_NO + part.bias_O.to(wide);
    if (part.lora_a_RC.defined()) {
      const auto z_NR = at::matmul(merged ? dropped_NC.detach() : dropped_NC, part.lora_a_RC.to(type).t());
      const auto product_NO = part.scale * at::matmul(z_NR, part.lora_b_OR.to(type).t()).to(wide);
      y_NO = y_NO + (merged ? product_NO - product_NO.detach() : product_NO);   // merged: zero, with the product's gradient
    }
    if (part.whole_OC.defined()) {
      const auto product_NO = at::matmul(p_NC.detach(), part.whole_OC.to(type).t()).to(wide);
      y_NO = y_NO + (product_NO - product_NO.detach());   // zero, with the product's gradient
    }
    outputs.push_back(y_NO.to(type));
  }
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs, -1);
}

}  // namespace graft
