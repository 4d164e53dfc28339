#include "trainer/models/softmax_attention.h"

#include <functional>

#include <ATen/ops/empty.h>

#include "kernels/attention/attention.h"

namespace graft {

LoraDropout dropout_of(const Linear& linear, const Batch& batch) {
  LoraDropout dropout;
  if (!linear.adapter || linear.adapter->dropout == 0 || batch.dropout_seed == 0) return dropout;
  dropout.probability = linear.adapter->dropout;
  // FNV-1a of the name: the same on every machine, unlike std::hash.
  dropout.key = 1469598103934665603u ^ batch.dropout_seed;
  for (const char c : linear.module_name) dropout.key = (dropout.key ^ static_cast<uint8_t>(c)) * 1099511628211u;
  dropout.row_keys_N = at::empty({batch.num_tokens()}, at::kLong);
  std::copy(batch.row_keys_N.begin(), batch.row_keys_N.end(), dropout.row_keys_N.data_ptr<int64_t>());
  return dropout;
}

at::Tensor SoftmaxAttention::forward(const at::Tensor& x_NC, const RopeTable& rope, const Batch& batch,
                                     std::span<KeyValueCache* const> caches) const {
  LinearPrologue norm;
  norm.kind = LinearPrologue::Kind::kRmsNorm;
  norm.norm_weight_C = norm_weight_C;
  norm.epsilon = norm_epsilon;
  const auto qkv = lora_linear(x_NC, norm, {query.part(), key.part(), value.part()}, dropout_of(query, batch));
  AttentionOptions options;
  options.num_heads = spec.num_heads;
  options.num_kv_heads = spec.num_kv_heads;
  options.head_size = spec.head_size;
  options.scale = spec.scale;
  options.query_norm_D = query_norm_D;
  options.key_norm_D = key_norm_D;
  options.head_norm_epsilon = spec.head_norm ? spec.head_norm->epsilon : 0;
  options.cosine_PE = rope.cosine_PE;
  options.sine_PE = rope.sine_PE;
  options.shared_prefix = batch.shared_prefix;
  const auto mixed = caches.empty() ? packed_attention(qkv, options, batch.positions_N, batch.document_offsets)
                                    : cached_attention(qkv, options, batch.positions_N, batch.document_offsets, caches);
  return lora_linear(mixed, {}, {output.part()}, dropout_of(output, batch));
}

void SoftmaxAttention::set_device(c10::Device device, at::ScalarType compute) {
  for (auto* vector : {&norm_weight_C, &query_norm_D, &key_norm_D}) move_to(*vector, device);
  for (auto* linear : {&query, &key, &value, &output}) linear->set_device(device, compute);
}

}  // namespace graft
