// N tokens, H heads, D the size that query, key and value of a head are padded to.
#include "trainer/models/latent_attention.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>

#include "kernels/attention/attention.h"

namespace graft {
namespace {

// Zeros behind the last elements up to `size`: they add nothing to a score, and their part of the result is cut off.
at::Tensor padded(const at::Tensor& x, int64_t size) { return x.size(-1) == size ? x : at::constant_pad_nd(x, {0, size - x.size(-1)}); }

at::Tensor expanded(const at::Tensor& latent_NR, const Norm& norm, const Linear& linear, const Batch& batch) {
  return project(normed_input(norm, latent_NR.contiguous()), {&linear}, batch);
}

}  // namespace

std::vector<Linear*> LatentAttention::linears() {
  std::vector<Linear*> all = {&query_in};
  if (query_out) all.push_back(&*query_out);
  for (auto* linear : {&key_value_in, &key_value_out, &output}) all.push_back(linear);
  return all;
}

// [N, 3 * H * D]. The operator turns the leading elements of a head: the rotary part comes first in queries and keys, which changes no score.
at::Tensor LatentAttention::queries_keys_values(const at::Tensor& latents, const Batch& batch) const {
  const int64_t tokens = batch.num_tokens(), heads = spec_.num_heads, plain = spec_.plain_size, rotary = spec_.rotary_size, size = spec_.padded_size();
  const int64_t query_width = query_in.outputs();
  auto query = latents.narrow(1, 0, query_width);
  if (query_out) query = expanded(query, *query_norm, *query_out, batch);
  const auto query_NHD = query.reshape({tokens, heads, spec_.query_size()});
  const auto rotary_key = latents.narrow(1, query_width + spec_.key_value_rank, rotary).unsqueeze(1).expand({tokens, heads, rotary});
  const auto key_value_NHD = expanded(latents.narrow(1, query_width, spec_.key_value_rank), *key_value_norm, key_value_out, batch).view({tokens, heads, spec_.key_value_size()});
  const auto query_part = at::cat({query_NHD.narrow(2, plain, rotary), query_NHD.narrow(2, 0, plain)}, 2);
  const auto key_part = at::cat({rotary_key, key_value_NHD.narrow(2, 0, plain)}, 2);
  const auto value_part = key_value_NHD.narrow(2, plain, spec_.value_size);
  return at::cat({padded(query_part, size), padded(key_part, size), padded(value_part, size)}, 1).view({tokens, 3 * heads * size});
}

at::Tensor LatentAttention::forward(const BlockInput& input, const LayerContext& context) const {
  const auto& batch = context.batch;
  const int64_t tokens = batch.num_tokens(), heads = spec_.num_heads, size = spec_.padded_size();
  const auto latents = project(input, {&query_in, &key_value_in}, batch);
  AttentionOptions options;
  options.num_heads = options.num_kv_heads = heads;
  options.head_size = size;
  options.scale = spec_.scale;
  if (spec_.rope) {
    const auto& rope = context.ropes[static_cast<size_t>(*spec_.rope)];
    options.cosine_PE = rope.cosine_PE;
    options.sine_PE = rope.sine_PE;
    options.neighbouring_pairs = rope.neighbouring_pairs;
  }
  options.shared_prefix = batch.shared_prefix;
  if (indexer) *context.selected_keys_NB = indexer->selected_keys(input, latents.narrow(1, 0, query_in.outputs()), *query_norm, context.ropes[static_cast<size_t>(*spec_.rope)], context);
  if (spec_.indexer) options.selected_keys_NB = *context.selected_keys_NB;
  const auto qkv = queries_keys_values(latents, batch);
  const auto mixed = context.caches.empty() ? packed_attention(qkv, options, batch.positions_N, batch.document_offsets)
                                            : cached_attention(qkv, options, batch.positions_N, batch.document_offsets, context.caches);
  const auto values = mixed.view({tokens, heads, size}).narrow(2, 0, spec_.value_size).reshape({tokens, heads * spec_.value_size});
  return project({values, {}}, {&output}, batch);
}

void LatentAttention::set_device(c10::Device device, at::ScalarType compute) {
  Block::set_device(device, compute);
  for (auto* norm : {&query_norm, &key_value_norm}) {
    if (*norm) (*norm)->set_device(device);
  }
  if (indexer) indexer->set_device(device);
}

}  // namespace graft
