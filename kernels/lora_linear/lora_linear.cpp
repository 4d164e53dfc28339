#include "kernels/lora_linear/lora_linear.h"

#include <ATen/ATen.h>

#include "kernels/common/error.h"

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

at::Tensor lora_linear_reference(const at::Tensor& x_NC, const LinearPrologue& prologue, const std::vector<LinearPart>& parts,
                                 const LoraDropout& dropout) {
  const auto type = x_NC.scalar_type();
  at::Tensor p_NC = x_NC;
  if (prologue.kind == LinearPrologue::Kind::kRmsNorm) {
    p_NC = x_NC * at::rsqrt(x_NC.square().mean(-1, true) + prologue.epsilon) * prologue.norm_weight_C.to(type);
  } else if (prologue.kind == LinearPrologue::Kind::kSwiGlu) {
    const auto halves = x_NC.chunk(2, -1);
    p_NC = at::silu(halves[0]) * halves[1];
  } else if (prologue.kind == LinearPrologue::Kind::kGeluTanhGated) {
    const auto halves = x_NC.chunk(2, -1);
    p_NC = at::gelu(halves[0], "tanh") * halves[1];
  } else if (prologue.kind == LinearPrologue::Kind::kGeluTanh) {
    p_NC = at::gelu(x_NC, "tanh");
  }
  at::Tensor dropped_NC = p_NC;
  if (dropout.probability > 0) {
    auto mask_NC = at::empty(p_NC.sizes(), at::kFloat);
    auto* values = mask_NC.data_ptr<float>();
    const auto* keys = dropout.row_keys_N.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < mask_NC.numel(); ++i) values[i] = dropout_factor(dropout, keys[i / mask_NC.size(1)], i % mask_NC.size(1));
    dropped_NC = p_NC * mask_NC.to(type);
  }
  std::vector<at::Tensor> outputs;
  for (const auto& part : parts) {
    auto weight_OC = at::empty({part.weight->rows(), part.weight->columns()}, at::kFloat);
    part.weight->decode_rows(0, part.weight->rows(), weight_OC.data_ptr<float>(), part.weight->columns());
    auto y_NO = at::matmul(p_NC, weight_OC.to(type).t());
    if (part.bias_O.defined()) y_NO = y_NO + part.bias_O.to(type);
    if (part.lora_a_RC.defined()) {
      y_NO = y_NO + part.scale * at::matmul(at::matmul(dropped_NC, part.lora_a_RC.to(type).t()), part.lora_b_OR.to(type).t());
    }
    outputs.push_back(y_NO);
  }
  return at::cat(outputs, -1);
}

}  // namespace graft
