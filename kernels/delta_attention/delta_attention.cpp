#include "kernels/delta_attention/delta_attention.h"

#include <ATen/ATen.h>

#include "kernels/elementwise/typed_rows.h"

namespace graft {
namespace {

// x_TC of one document; the taps before its first token are zeros.
at::Tensor convolved(const at::Tensor& x_TC, const at::Tensor& weights_CK) {
  const int64_t taps = weights_CK.size(1), tokens = x_TC.size(0);
  const auto padded = at::constant_pad_nd(x_TC, {0, 0, taps - 1, 0});
  auto sum = at::zeros_like(x_TC);
  for (int64_t tap = 0; tap < taps; ++tap) sum = sum + padded.narrow(0, tap, tokens) * weights_CK.select(1, tap);
  return at::silu(sum);
}

at::Tensor normalised(const at::Tensor& x) { return x * at::rsqrt(x.square().sum(-1, true) + 1e-6); }

}  // namespace

at::Tensor delta_attention_reference(const DeltaAttentionInputs& inputs, const DeltaAttentionOptions& options, std::span<const int32_t> document_offsets) {
  const int64_t key_heads = options.num_key_heads, heads = options.num_value_heads, key_size = options.key_size, value_size = options.value_size;
  const auto stored = inputs.qkv_NC.scalar_type();
  const auto type = wide_type(stored);
  std::vector<at::Tensor> outputs;
  for (size_t d = 0; d + 1 < document_offsets.size(); ++d) {
    const int64_t begin = document_offsets[d], tokens = document_offsets[d + 1] - begin;
    if (tokens == 0) continue;
    const auto rows = [&](const at::Tensor& x) { return x.narrow(0, begin, tokens).to(type); };
    const auto parts = convolved(rows(inputs.qkv_NC), options.convolution_CK.to(type)).split_with_sizes({key_heads * key_size, key_heads * key_size, heads * value_size}, 1);
    const auto of_value_heads = [&](const at::Tensor& x) {
      const auto normed = normalised(x.view({tokens, key_heads, key_size}));
      return options.tiled_value_heads ? normed.repeat({1, heads / key_heads, 1}) : normed.repeat_interleave(heads / key_heads, 1);
    };
    const auto q_THD = of_value_heads(parts[0]) / std::sqrt(static_cast<double>(key_size)), k_THD = of_value_heads(parts[1]);
    const auto v_THV = parts[2].view({tokens, heads, value_size});
    const auto beta_TH = at::sigmoid(rows(inputs.b_NH));
    const auto raised = at::softplus(rows(inputs.a_NA) + options.decay_bias_A.to(type)).view({tokens, heads, -1});   // [T, H, 1 or D]
    const auto decay = at::exp(-options.decay_rate_H.to(type).view({heads, 1}) * raised);
    auto state_HDV = at::zeros({heads, key_size, value_size}, q_THD.options().requires_grad(false));
    std::vector<at::Tensor> read;
    for (int64_t t = 0; t < tokens; ++t) {
      const auto key_HD1 = k_THD[t].unsqueeze(-1);
      state_HDV = state_HDV * decay[t].unsqueeze(-1);
      const auto written = beta_TH[t].unsqueeze(-1) * (v_THV[t] - (state_HDV * key_HD1).sum(1));
      state_HDV = state_HDV + key_HD1 * written.unsqueeze(1);
      read.push_back((state_HDV * q_THD[t].unsqueeze(-1)).sum(1));
    }
    const auto o_THV = at::stack(read);
    const auto normed = o_THV * at::rsqrt(o_THV.square().mean(-1, true) + options.norm_epsilon) * options.norm_weight_V.to(type);
    const auto z_THV = rows(inputs.z_NV).view({tokens, heads, value_size});
    outputs.push_back((normed * (options.gate == DeltaAttentionOptions::Gate::kSilu ? at::silu(z_THV) : at::sigmoid(z_THV))).flatten(1));
  }
  return outputs.empty() ? inputs.z_NV.clone() : at::cat(outputs, 0).to(stored);
}

}  // namespace graft
