// N tokens, G key heads, H value heads.
#include "trainer/models/delta_attention.h"

#include <numeric>

#include <ATen/ops/cat.h>

#include "kernels/delta_attention/delta_attention.h"

namespace graft {
namespace {

using Form = DeltaAttentionSpec::Form;

at::Tensor expanded(const at::Tensor& latent_NR, const Linear& linear, const Batch& batch) {
  return project({latent_NR.contiguous(), {}}, {&linear}, batch);
}

// [N, G * sum of sizes], each key head's parts beside each other, to one [N, G * size] a part.
std::vector<at::Tensor> parts_by_head(const at::Tensor& x, int64_t heads, std::vector<int64_t> sizes) {
  const auto split = x.reshape({x.size(0), heads, -1}).split_with_sizes(sizes, 2);
  std::vector<at::Tensor> parts;
  for (const auto& part : split) parts.push_back(part.reshape({x.size(0), -1}));
  return parts;
}

}  // namespace

std::vector<Linear*> DeltaAttention::linears() {
  std::vector<Linear*> all;
  for (auto& linear : inputs) all.push_back(&linear);
  for (auto* linear : {&decay_out, &gate_out}) {
    if (*linear) all.push_back(&**linear);
  }
  all.push_back(&output);
  return all;
}

DeltaAttentionInputs DeltaAttention::parts_of(const at::Tensor& projected, const Batch& batch) const {
  std::vector<int64_t> widths;
  for (const auto& linear : inputs) widths.push_back(linear.outputs());
  const int64_t per_key = spec_.values_per_key();
  if (spec_.form == Form::kByKeyHead) {
    const auto whole = projected.split_with_sizes(widths, 1);
    const auto mixed = parts_by_head(whole[0], spec_.num_key_heads, {spec_.key_size, spec_.key_size, per_key * spec_.value_size, per_key * spec_.value_size});
    const auto rates = parts_by_head(whole[1], spec_.num_key_heads, {per_key, per_key});
    return {at::cat({mixed[0], mixed[1], mixed[2]}, 1), rates[1], rates[0], mixed[3]};
  }
  if (spec_.form == Form::kByPart) {
    const auto parts = projected.split_with_sizes(widths, 1);
    return {parts[0], parts[3], parts[2], parts[1]};
  }
  const int64_t mixed = std::accumulate(widths.begin(), widths.begin() + 3, int64_t{0});
  const auto rest = projected.narrow(1, mixed, projected.size(1) - mixed).split_with_sizes({widths[3], widths[4], widths[5]}, 1);
  return {projected.narrow(1, 0, mixed), expanded(rest[0], *decay_out, batch), rest[1], expanded(rest[2], *gate_out, batch)};
}

at::Tensor DeltaAttention::forward(const BlockInput& input, const LayerContext& context) const {
  const auto& batch = context.batch;
  const auto rows = parts_of(project(input, addresses(inputs), batch), batch);
  DeltaAttentionOptions options;
  options.num_key_heads = spec_.num_key_heads;
  options.num_value_heads = spec_.num_value_heads;
  options.key_size = spec_.key_size;
  options.value_size = spec_.value_size;
  options.tiled_value_heads = spec_.tiled_value_heads;
  options.convolution_CK = convolution_CK;
  options.decay_rate_H = decay_rate_H;
  options.decay_bias_A = decay_bias_A;
  options.norm_weight_V = norm_weight_V;
  options.norm_epsilon = spec_.norm_epsilon;
  options.gate = spec_.form == Form::kLowRank ? DeltaAttentionOptions::Gate::kSigmoid : DeltaAttentionOptions::Gate::kSilu;
  const auto mixed = context.delta_states.empty() ? delta_attention(rows, options, batch.document_offsets)
                                                  : cached_delta_attention(rows, options, batch.document_offsets, context.delta_states);
  return project({mixed, {}}, {&output}, batch);
}

void DeltaAttention::set_device(c10::Device device, at::ScalarType compute) {
  Block::set_device(device, compute);
  for (auto* tensor : {&convolution_CK, &decay_rate_H, &decay_bias_A, &norm_weight_V}) move_to(*tensor, device);
}

}  // namespace graft
