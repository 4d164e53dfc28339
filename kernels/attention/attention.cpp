#include "kernels/attention/attention.h"

#include <ATen/ATen.h>

#include "kernels/attention/key_bits.h"
#include "kernels/attention/rotation.h"
#include "kernels/elementwise/typed_rows.h"

namespace graft {

at::Tensor packed_attention_reference(const at::Tensor& qkv, const AttentionOptions& options, std::span<const int32_t> positions,
                                      std::span<const int32_t> document_offsets) {
  const int64_t num_heads = options.num_heads, num_kv = options.num_kv_heads, size = options.head_size;
  const auto type = wide_type(qkv.scalar_type());
  const auto parts = qkv.to(type).split_with_sizes({num_heads * size, num_kv * size, num_kv * size}, -1);
  at::Tensor cosine_NE, sine_NE;
  if (options.cosine_PE.defined()) {
    cosine_NE = rows_at(options.cosine_PE, positions, parts[0]);
    sine_NE = rows_at(options.sine_PE, positions, parts[0]);
  }
  const auto turned = [&](const at::Tensor& x_NHD) { return cosine_NE.defined() ? rotated(x_NHD, cosine_NE, sine_NE, options.neighbouring_pairs) : x_NHD; };
  const auto prepared = [&](const at::Tensor& x, int64_t heads, const at::Tensor& norm) {
    auto x_NHD = x.view({-1, heads, size});
    if (options.norm_after_rotation) x_NHD = turned(x_NHD);
    if (norm.defined()) x_NHD = x_NHD * at::rsqrt(x_NHD.square().mean(-1, true) + options.head_norm_epsilon) * norm.to(type);
    return options.norm_after_rotation ? x_NHD : turned(x_NHD);
  };
  auto q_NHD = prepared(parts[0], num_heads, options.query_norm_D);
  if (options.query_scale_P.defined()) q_NHD = q_NHD * rows_at(options.query_scale_P, positions, q_NHD).view({-1, 1, 1});
  const auto k_NKD = prepared(parts[1], num_kv, options.key_norm_D);
  const auto v_NKD = parts[2].view({-1, num_kv, size});
  // Cut once: a gradient is then put together once, not once a document.
  std::vector<int64_t> lengths;
  for (size_t d = 0; d + 1 < document_offsets.size(); ++d) lengths.push_back(document_offsets[d + 1] - document_offsets[d]);
  const auto queries = q_NHD.split_with_sizes(lengths), keys = k_NKD.split_with_sizes(lengths), values = v_NKD.split_with_sizes(lengths);
  const auto shared_keys = k_NKD.narrow(0, 0, options.shared_prefix), shared_values = v_NKD.narrow(0, 0, options.shared_prefix);
  std::vector<at::Tensor> outputs;
  for (size_t d = 0; d < lengths.size(); ++d) {
    const int64_t length = lengths[d], before = d == 0 ? 0 : options.shared_prefix;
    if (length == 0) continue;
    const auto seen = [&](const at::Tensor& shared, const at::Tensor& own) {   // of each query head
      const auto seen_SKD = before == 0 ? own : at::cat({shared, own}, 0);
      return seen_SKD.transpose(0, 1).repeat_interleave(num_heads / num_kv, 0);
    };
    const auto q_HTD = queries[d].transpose(0, 1), k_HTD = seen(shared_keys, keys[d]), v_HTD = seen(shared_values, values[d]);
    const auto ones = at::ones({length, before + length}, qkv.options().dtype(at::kBool).requires_grad(false));
    auto hidden = ones.triu(before + 1);
    if (options.window > 0) hidden = hidden.logical_or(ones.tril(before - options.window));
    if (options.selected_keys_NB.defined()) {
      hidden = hidden.logical_or(unpack_keys(options.selected_keys_NB.narrow(0, document_offsets[d], length), before + length).logical_not());
    }
    auto scores = at::matmul(q_HTD, k_HTD.transpose(1, 2)) * options.scale;
    if (options.softcap > 0) scores = at::tanh(scores / options.softcap) * options.softcap;
    if (options.alibi_slopes_H.defined()) {
      const auto places = at::arange(before + length, at::TensorOptions(at::kLong).device(qkv.device()));
      const auto distance = (places - places.narrow(0, before, length).unsqueeze(1)).to(type);   // of a key from the query, <= 0
      scores = scores + options.alibi_slopes_H.to(type).view({-1, 1, 1}) * distance;
    }
    scores = scores.masked_fill(hidden, -INFINITY);
    if (options.sinks_H.defined()) scores = at::cat({scores, options.sinks_H.to(type).view({-1, 1, 1}).expand({num_heads, length, 1})}, -1);
    const auto shares = at::softmax(scores, -1).narrow(-1, 0, before + length);
    outputs.push_back(at::matmul(shares, v_HTD).transpose(0, 1).reshape({length, num_heads * size}));
  }
  return outputs.empty() ? qkv.narrow(1, 0, num_heads * size).clone() : at::cat(outputs, 0).to(qkv.scalar_type());
}

}  // namespace graft
