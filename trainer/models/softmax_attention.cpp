#include "trainer/models/softmax_attention.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sigmoid.h>

#include "kernels/attention/attention.h"
#include "kernels/common/error.h"
#include "kernels/rms_norm/rms_norm.h"

namespace graft {
namespace {

// The table row of every token. With two tables in one (longrope) a document's length decides which it reads.
std::vector<int32_t> table_rows(const RopeTable& rope, const LayerContext& context) {
  const auto& batch = context.batch;
  auto rows = batch.positions_N;
  if (rope.longest_short == 0) return rows;
  for (size_t d = 0; d + 1 < batch.document_offsets.size(); ++d) {
    const int64_t begin = batch.document_offsets[d], end = batch.document_offsets[d + 1];
    if (begin == end || batch.positions_N[end - 1] < rope.longest_short) continue;
    const int64_t cached = context.caches.empty() ? 0 : context.caches[d]->length;
    if (cached > 0 && cached <= rope.longest_short) {
      fail("models", "expected a conversation to stay below {} tokens or to begin beyond, got {} tokens that go on to {}: longrope turns earlier tokens "
           "otherwise from there on — start it anew with the whole text as the prompt", rope.longest_short, cached, batch.positions_N[end - 1] + 1);
    }
    for (int64_t n = begin; n < end; ++n) rows[n] += static_cast<int32_t>(rope.num_positions);
  }
  return rows;
}

}  // namespace

std::vector<float> alibi_slopes(int64_t num_heads) {
  const auto power = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(num_heads)));
  std::vector<float> slopes;
  const auto base = [](int64_t heads) { return static_cast<float>(std::exp2(-8.0 / static_cast<double>(heads))); };
  for (int64_t h = 1; h <= power; ++h) slopes.push_back(std::pow(base(power), static_cast<float>(h)));
  for (int64_t h = 1; static_cast<int64_t>(slopes.size()) < num_heads; h += 2) slopes.push_back(std::pow(base(2 * power), static_cast<float>(h)));
  return slopes;
}

SoftmaxAttention::SoftmaxAttention(const AttentionSpec& spec) : spec_(spec) {
  if (!spec.alibi) return;
  const auto slopes = alibi_slopes(spec.num_heads);
  slopes_H_ = at::empty({spec.num_heads}, at::kFloat);
  std::copy(slopes.begin(), slopes.end(), slopes_H_.data_ptr<float>());
}

std::vector<Linear*> SoftmaxAttention::linears() {
  std::vector<Linear*> all;
  for (auto& linear : inputs) all.push_back(&linear);
  all.push_back(&output);
  return all;
}

// RMS norm of all queries of a token as one row, and of all its keys.
at::Tensor SoftmaxAttention::normed_widths(const at::Tensor& qkv) const {
  const int64_t query_size = spec_.num_heads * spec_.head_size, key_size = spec_.num_kv_heads * spec_.head_size;
  const double epsilon = spec_.head_norm->epsilon;
  return at::cat({rms_norm(qkv.narrow(1, 0, query_size), query_norm, epsilon), rms_norm(qkv.narrow(1, query_size, key_size), key_norm, epsilon),
                  qkv.narrow(1, query_size + key_size, key_size)}, 1);
}

at::Tensor SoftmaxAttention::forward(const BlockInput& input, const LayerContext& context) const {
  const auto& batch = context.batch;
  auto qkv = project(input, addresses(inputs), batch);
  at::Tensor gate;
  if (spec_.output_gate) {   // [queries | gates | keys | values]
    const int64_t width = spec_.num_heads * spec_.head_size;
    gate = qkv.narrow(1, width, width);
    qkv = at::cat({qkv.narrow(1, 0, width), qkv.narrow(1, 2 * width, qkv.size(1) - 2 * width)}, 1);
  }
  AttentionOptions options;
  options.num_heads = spec_.num_heads;
  options.num_kv_heads = spec_.num_kv_heads;
  options.head_size = spec_.head_size;
  options.scale = spec_.scale;
  options.window = spec_.window;
  options.softcap = spec_.softcap;
  options.alibi_slopes_H = slopes_H_;
  options.sinks_H = sinks_H;
  options.shared_prefix = batch.shared_prefix;
  if (spec_.head_norm && spec_.head_norm_place == AttentionSpec::HeadNorm::kWholeWidth) {
    qkv = normed_widths(qkv);
  } else if (spec_.head_norm) {
    options.query_norm_D = query_norm;
    options.key_norm_D = key_norm;
    options.head_norm_epsilon = spec_.head_norm->epsilon;
    options.norm_after_rotation = spec_.head_norm_place == AttentionSpec::HeadNorm::kAfterRotation;
  }
  std::vector<int32_t> rows = batch.positions_N;
  if (spec_.rope) {
    const auto& rope = context.ropes[static_cast<size_t>(*spec_.rope)];
    options.cosine_PE = rope.cosine_PE;
    options.sine_PE = rope.sine_PE;
    options.query_scale_P = rope.query_scale_P;
    options.neighbouring_pairs = rope.neighbouring_pairs;
    rows = table_rows(rope, context);
  }
  auto mixed = context.caches.empty() ? packed_attention(qkv, options, rows, batch.document_offsets)
                                            : cached_attention(qkv, options, rows, batch.document_offsets, context.caches);
  if (gate.defined()) mixed = at::mul(mixed, at::sigmoid(gate));
  return project({mixed, {}}, {&output}, batch);
}

void SoftmaxAttention::set_device(c10::Device device, at::ScalarType compute) {
  Block::set_device(device, compute);
  for (auto* vector : {&query_norm, &key_norm, &slopes_H_, &sinks_H}) move_to(*vector, device);
}

}  // namespace graft
