// The CPU path: heads are unpacked (attention_heads.h), then blocks of queries walk over blocks of keys.
// Operand: see operands.h; softmax is float32.
#include <algorithm>
#include <cmath>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include "kernels/attention/attention.h"
#include "kernels/attention/attention_checks.h"
#include "kernels/attention/attention_device.h"
#include "kernels/attention/attention_heads.h"
#include "kernels/attention/key_bits.h"
#include "kernels/common/operator_path.h"
#include "kernels/device_launch/device_launch.h"
#include "kernels/elementwise/typed_rows.h"
#include "kernels/matrix_product/operands.h"
#include "kernels/scratch/scratch.h"
#include "kernels/tasks/for_each_task.h"

namespace graft {
namespace {

using at::Tensor;
using namespace attention_heads;

constexpr int64_t kQueryBlock = 128, kKeyBlock = 256;

// Float32 rows as operands: themselves, or rounded into a buffer.
template <typename Operand>
struct OperandRows {
  explicit OperandRows(int64_t count) : rounded(std::is_same_v<Operand, float> ? 0 : count) {}
  void take(const float* row, int64_t size, int64_t offset) {
    if constexpr (!std::is_same_v<Operand, float>) rows::from_float(row, size, rounded.data() + offset);
  }
  const Operand* of(const float* rows) const {
    if constexpr (std::is_same_v<Operand, float>) return rows;
    else return rounded.data();
  }
  std::vector<Operand> rounded;
};

template <typename Operand>
struct Task {
  const DocumentView<Operand>* document;
  int64_t head, first_query, num_queries;
};

// A head's tasks beside each other, which read the same keys; the largest first, so that the last ones to end are small.
template <typename Operand>
std::vector<Task<Operand>> tasks_of(const std::vector<DocumentView<Operand>>& documents, int64_t num_heads) {
  std::vector<Task<Operand>> tasks;
  for (const auto& document : documents) {
    for (int64_t head = 0; head < num_heads; ++head) {
      for (int64_t first = (document.num_queries - 1) / kQueryBlock * kQueryBlock; first >= 0; first -= kQueryBlock) {
        tasks.push_back({&document, head, first, std::min(kQueryBlock, document.num_queries - first)});
      }
    }
  }
  std::stable_sort(tasks.begin(), tasks.end(), [](const auto& x, const auto& y) { return x.document->num_keys > y.document->num_keys; });
  return tasks;
}

// The columns of a block of keys that a query sees: not the future, nothing before the window.
struct VisibleKeys {
  int64_t first = 0, end = 0;
  int64_t count() const { return end - first; }
};

template <typename Operand>
VisibleKeys visible_keys(const DocumentView<Operand>& document, const AttentionOptions& options, int64_t query, int64_t key_begin, int64_t num_keys) {
  const int64_t after_last = document.num_keys - document.num_queries + query + 1 - key_begin;
  const int64_t end = std::clamp<int64_t>(after_last, 0, num_keys);
  return {options.window == 0 ? 0 : std::clamp<int64_t>(after_last - options.window, 0, end), end};
}

// Products of a query and `count` keys to scores, softcap and slopes in them; returns what is still to be multiplied. `first_key` counts from the
// query's own key: nearby keys keep all digits of slope * distance.
float finish_scores(float* row, int64_t count, const AttentionOptions& options, int64_t head, int64_t first_key) {
  float scale = static_cast<float>(options.scale);
  if (options.softcap > 0) {
    rows::soft_cap(row, count, scale, static_cast<float>(options.softcap));
    scale = 1;
  }
  if (options.alibi_slopes_H.defined()) {
    const float slope = options.alibi_slopes_H.const_data_ptr<float>()[head] / scale;
    rows::add_ramp(row, count, slope * static_cast<float>(first_key), slope);
  }
  return scale;
}

// Gives `count` keys from `first_key` on that the token does not select this value; how many it selects.
int64_t fill_unselected(const AttentionOptions& options, int64_t token, float* row, int64_t count, int64_t first_key, float value) {
  if (!options.selected_keys_NB.defined()) return count;
  const uint8_t* bits = options.selected_keys_NB.const_data_ptr<uint8_t>() + token * options.selected_keys_NB.size(1);
  int64_t selected = 0;
  for (int64_t i = 0; i < count; ++i) {
    const bool seen = has_key(bits, first_key + i);
    row[i] = seen ? row[i] : value;
    selected += seen;
  }
  return selected;
}

// One block of queries of one head: out and log-sum-exp.
template <typename Operand>
void forward_block(const Task<Operand>& task, const AttentionOptions& options, const Operand* queries, int64_t num_tokens, float* out_rows,
                   int64_t out_stride, float* log_sums) {
  const auto& document = *task.document;
  const int64_t size = options.head_size, group = options.num_heads / options.num_kv_heads;
  const Operand* q = queries + (task.head * num_tokens + document.query_begin + task.first_query) * size;
  const Operand* k = document.keys + task.head / group * document.key_head_stride;
  const Operand* v = document.values + task.head / group * document.key_head_stride;
  const int64_t before = document.num_keys - document.num_queries, end_key = before + task.first_query + task.num_queries;
  const int64_t first_key = options.window == 0 ? 0 : std::max<int64_t>(0, before + task.first_query + 1 - options.window) / kKeyBlock * kKeyBlock;
  std::vector<float> scores(task.num_queries * std::min(end_key, kKeyBlock)), maxima(task.num_queries, -INFINITY), sums(task.num_queries, 0);
  OperandRows<Operand> probabilities(scores.size());
  for (int64_t r = 0; r < task.num_queries; ++r) std::fill_n(out_rows + r * out_stride, size, 0.0f);
  if (options.sinks_H.defined()) {   // a key before all others, whose value is zero
    std::fill(maxima.begin(), maxima.end(), options.sinks_H.const_data_ptr<float>()[task.head]);
    std::fill(sums.begin(), sums.end(), 1.0f);
  }
  for (int64_t begin = first_key; begin < end_key; begin += kKeyBlock) {
    const int64_t keys = std::min(kKeyBlock, end_key - begin);
    operand_product<Operand>(task.num_queries, keys, size, {q, size}, {k + begin * size, size, true}, scores.data(), keys);
    for (int64_t r = 0; r < task.num_queries; ++r) {
      float* row = scores.data() + r * keys;
      const auto visible = visible_keys(document, options, task.first_query + r, begin, keys);
      const int64_t token = document.query_begin + task.first_query + r;
      std::fill(row, row + visible.first, 0.0f);
      std::fill(row + visible.end, row + keys, 0.0f);
      float* seen = row + visible.first;
      const float scale = finish_scores(seen, visible.count(), options, task.head, begin + visible.first - before - task.first_query - r);
      if (fill_unselected(options, token, seen, visible.count(), begin + visible.first, -INFINITY) == 0) {
        std::fill_n(seen, visible.count(), 0.0f);
        probabilities.take(row, keys, r * keys);
        continue;
      }
      const float maximum = std::max(maxima[r], rows::maximum(seen, visible.count()) * scale);
      const float correction = maxima[r] == -INFINITY ? 0.0f : std::exp(maxima[r] - maximum);
      maxima[r] = maximum;
      sums[r] = sums[r] * correction + rows::exp_and_sum(seen, visible.count(), scale, maximum);
      fill_unselected(options, token, seen, visible.count(), begin + visible.first, 0);   // the exponential of -infinity there is small, not zero
      if (begin > 0) rows::scale(out_rows + r * out_stride, size, correction);
      probabilities.take(row, keys, r * keys);
    }
    operand_product<Operand>(task.num_queries, size, keys, {probabilities.of(scores.data()), keys}, {v + begin * size, size}, out_rows, out_stride, true);
  }
  for (int64_t r = 0; r < task.num_queries; ++r) {
    rows::scale(out_rows + r * out_stride, size, 1 / sums[r]);
    if (log_sums) log_sums[r] = maxima[r] + std::log(sums[r]);
  }
}

// out [N, H*D] in the type of `like` and, when wanted, log-sum-exp [H, N].
template <typename Operand>
Tensor forward_all(const std::vector<DocumentView<Operand>>& documents, const AttentionOptions& options, const Tensor& queries, Tensor* log_sum_HN, const Tensor& like) {
  const int64_t num_tokens = queries.size(1), size = options.head_size;
  Scratch scratch;
  auto out = at::empty({num_tokens, options.num_heads * size}, like.options().requires_grad(false));
  const auto out32 = like.scalar_type() == at::kFloat ? out : scratch.tensor(out.sizes());
  for_each_task(tasks_of(documents, options.num_heads), [&](const auto& task) {
    const int64_t row = task.document->query_begin + task.first_query;
    forward_block(task, options, data_of<const Operand>(queries), num_tokens, out32.data_ptr<float>() + row * options.num_heads * size + task.head * size,
                  options.num_heads * size, log_sum_HN ? log_sum_HN->data_ptr<float>() + task.head * num_tokens + row : nullptr);
  });
  if (like.scalar_type() == at::kFloat) return out;
  const float* source = out32.const_data_ptr<float>();
  auto* target = static_cast<uint16_t*>(out.data_ptr());
  at::parallel_for(0, out.numel(), 16384, [&](int64_t begin, int64_t end) { rows::from_float(source + begin, end - begin, target + begin); });
  return out;
}

// dq, dk, dv of one (document, query head): dk and dv per query head, summed over the group afterwards.
struct HeadGradients {
  float *dq, *dk, *dv;   // [queries, D], [keys, D], [keys, D]
};

// A query head of a document, or half of it: the keys of one part.
template <typename Operand>
struct BackwardTask {
  const DocumentView<Operand>* document;
  int64_t head, key_begin, key_end;
  bool second;   // part: its gradients of queries are added to the first's afterwards
};

// Two parts of equal work for long documents, whatever the number of threads: a few heads on a few threads would end far apart.
template <typename Operand>
std::vector<BackwardTask<Operand>> backward_tasks(const std::vector<DocumentView<Operand>>& documents, int64_t num_heads, int64_t window) {
  std::vector<BackwardTask<Operand>> tasks;
  for (const auto& document : documents) {
    const auto queries_of = [&](int64_t key) {
      const int64_t all = std::min(document.num_queries, document.num_keys - key);
      return window == 0 ? all : std::min(all, window + kKeyBlock);
    };
    int64_t work = 0, first_work = 0, border = 0;
    for (int64_t key = 0; key < document.num_keys; key += kKeyBlock) work += queries_of(key);
    for (; border < document.num_keys && 2 * first_work < work; border += kKeyBlock) first_work += queries_of(border);
    if (document.num_keys < 2 * kKeyBlock || border >= document.num_keys) border = document.num_keys;
    for (int64_t head = 0; head < num_heads; ++head) {
      tasks.push_back({&document, head, 0, border, false});
      if (border < document.num_keys) tasks.push_back({&document, head, border, document.num_keys, true});
    }
  }
  std::stable_sort(tasks.begin(), tasks.end(), [](const auto& x, const auto& y) { return x.document->num_keys > y.document->num_keys; });
  return tasks;
}

template <typename Operand>
void backward_part(const BackwardTask<Operand>& task, const AttentionOptions& options, const Operand* queries, const Operand* dout, const Operand* out,
                   const float* log_sums, const HeadGradients& gradients) {
  const auto& document = *task.document;
  const int64_t head = task.head;
  const int64_t size = options.head_size, num_queries = document.num_queries, group = options.num_heads / options.num_kv_heads;
  const int64_t before = document.num_keys - num_queries;   // the first query's key
  const Operand* k = document.keys + head / group * document.key_head_stride;
  const Operand* v = document.values + head / group * document.key_head_stride;
  std::vector<float> deltas(num_queries), scores(kQueryBlock * kKeyBlock), dscores(kQueryBlock * kKeyBlock), capped(options.softcap > 0 ? kKeyBlock : 0);
  OperandRows<Operand> probabilities(scores.size()), score_gradients(scores.size());
  std::vector<float> wide(2 * size);
  for (int64_t r = 0; r < num_queries; ++r) {
    rows::to_float(dout + r * size, size, wide.data());
    rows::to_float(out + r * size, size, wide.data() + size);
    deltas[r] = rows::dot(wide.data(), wide.data() + size, size);
  }
  for (int64_t key_begin = task.key_begin; key_begin < task.key_end; key_begin += kKeyBlock) {
    const int64_t block_keys = std::min(kKeyBlock, task.key_end - key_begin);
    const int64_t first_query = std::max<int64_t>(0, key_begin - before) / kQueryBlock * kQueryBlock;
    const int64_t end_query = options.window == 0 ? num_queries : std::min(num_queries, key_begin + block_keys - 1 + options.window - before);
    for (int64_t query_begin = first_query; query_begin < end_query; query_begin += kQueryBlock) {
      const int64_t count = std::min(kQueryBlock, num_queries - query_begin);
      const int64_t keys = std::min(block_keys, before + query_begin + count - key_begin);   // the later ones lie in the future of all these queries
      operand_product<Operand>(count, keys, size, {queries + query_begin * size, size}, {k + key_begin * size, size, true}, scores.data(), keys);
      operand_product<Operand>(count, keys, size, {dout + query_begin * size, size}, {v + key_begin * size, size, true}, dscores.data(), keys);
      for (int64_t r = 0; r < count; ++r) {
        float* p = scores.data() + r * keys;
        float* dp = dscores.data() + r * keys;
        const auto visible = visible_keys(document, options, query_begin + r, key_begin, keys);
        float *seen = p + visible.first, *dseen = dp + visible.first;
        if (options.softcap > 0) {
          std::copy_n(seen, visible.count(), capped.data());
          rows::soft_cap(capped.data(), visible.count(), static_cast<float>(options.scale), static_cast<float>(options.softcap));
        }
        const float scale = finish_scores(seen, visible.count(), options, head, key_begin + visible.first - before - query_begin - r);
        rows::exp_and_sum(seen, visible.count(), scale, log_sums[query_begin + r]);
        fill_unselected(options, document.query_begin + query_begin + r, seen, visible.count(), key_begin + visible.first, 0);
        rows::softmax_backward(seen, dseen, visible.count(), deltas[query_begin + r], static_cast<float>(options.scale));
        if (options.softcap > 0) rows::soft_cap_backward(dseen, capped.data(), visible.count(), static_cast<float>(options.softcap));
        for (float* row : {p, dp}) {
          std::fill(row, row + visible.first, 0.0f);
          std::fill(row + visible.end, row + keys, 0.0f);
        }
        probabilities.take(p, keys, r * keys);
        score_gradients.take(dp, keys, r * keys);
      }
      const auto* p = probabilities.of(scores.data());
      const auto* ds = score_gradients.of(dscores.data());
      operand_product<Operand>(keys, size, count, {p, keys, true}, {dout + query_begin * size, size}, gradients.dv + key_begin * size, size, true);
      operand_product<Operand>(keys, size, count, {ds, keys, true}, {queries + query_begin * size, size}, gradients.dk + key_begin * size, size, true);
      operand_product<Operand>(count, size, keys, {ds, keys}, {k + key_begin * size, size}, gradients.dq + query_begin * size, size, true);
    }
  }
}

struct PackedAttentionBackward : torch::autograd::Node {
  Tensor qkv, out, log_sum_HN;   // out shares storage with the result but not its history: no cycle
  AttentionOptions options;
  std::vector<int32_t> positions, offsets;

  std::string name() const override { return "PackedAttentionBackward"; }
  void release_variables() override { qkv = out = log_sum_HN = Tensor(); }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    if (!gradients[0].defined()) return {Tensor()};
    return {operands_are_bf16(qkv) ? backward<uint16_t>(gradients[0].contiguous()) : backward<float>(gradients[0].contiguous())};
  }

  template <typename Operand>
  Tensor backward(const Tensor& dout) const {
    const int64_t num_tokens = qkv.size(0), num_heads = options.num_heads, size = options.head_size;
    Scratch scratch;
    const auto heads = unpack_heads<Operand>(scratch, qkv, options, positions);
    const auto layout = lay_out_keys<Operand>(scratch, heads, offsets, options);
    const auto dout_HND = by_head<Operand>(scratch, dout, options), out_HND = by_head<Operand>(scratch, out, options);
    const auto tasks = backward_tasks(layout.documents, num_heads, options.window);
    const bool halved = std::any_of(tasks.begin(), tasks.end(), [](const auto& task) { return task.second; });
    auto dq_HND = scratch.tensor({num_heads, num_tokens, size}).zero_(), second_dq_HND = halved ? scratch.tensor(dq_HND.sizes()).zero_() : Tensor();
    auto dk_HMD = scratch.tensor({num_heads, layout.num_rows, size}).zero_(), dv_HMD = scratch.tensor(dk_HMD.sizes()).zero_();
    for_each_task(tasks, [&](const auto& task) {
      const int64_t first = task.head * num_tokens + task.document->query_begin, offset = first * size;
      const int64_t document = task.document - layout.documents.data();
      const int64_t key_offset = (task.head * layout.num_rows + layout.first_row[document]) * size;
      backward_part(task, options, data_of<const Operand>(heads.queries) + offset, data_of<const Operand>(dout_HND) + offset, data_of<const Operand>(out_HND) + offset,
                    log_sum_HN.const_data_ptr<float>() + first,
                    {data_of<float>(task.second ? second_dq_HND : dq_HND) + offset, data_of<float>(dk_HMD) + key_offset, data_of<float>(dv_HMD) + key_offset});
    });
    if (halved) {
      at::parallel_for(0, dq_HND.numel(), 16384, [&](int64_t begin, int64_t end) {
        rows::add(data_of<float>(dq_HND) + begin, data_of<const float>(second_dq_HND) + begin, end - begin);
      });
    }
    return pack_gradients(qkv, options, positions, dq_HND, sum_to_tokens(scratch, dk_HMD, layout, num_tokens), sum_to_tokens(scratch, dv_HMD, layout, num_tokens));
  }

};

void grow(KeyValueCache& cache, int64_t tokens, int64_t num_kv_heads, int64_t head_size) {
  if (tokens <= cache.capacity) return;
  const int64_t grown = std::max({tokens, cache.reserved, 2 * cache.capacity});
  for (auto* buffer : {&cache.keys, &cache.values}) {
    std::vector<float> larger(grown * num_kv_heads * head_size);
    for (int64_t kv = 0; kv < num_kv_heads; ++kv) {
      std::copy_n(buffer->data() + kv * cache.capacity * head_size, cache.length * head_size, larger.data() + kv * grown * head_size);
    }
    *buffer = std::move(larger);
  }
  cache.capacity = grown;
}

AttentionOptions on_cpu(AttentionOptions options) {
  for (auto* tensor : {&options.query_norm_D, &options.key_norm_D, &options.cosine_PE, &options.sine_PE, &options.query_scale_P, &options.alibi_slopes_H, &options.sinks_H,
                       &options.selected_keys_NB}) {
    if (tensor->defined()) *tensor = tensor->cpu();
  }
  return options;
}

}  // namespace

Tensor packed_attention(const Tensor& qkv, const AttentionOptions& options, std::span<const int32_t> positions,
                        std::span<const int32_t> document_offsets) {
  check_attention(qkv, options, positions, document_offsets);
  if (takes_kernels(qkv, attention_has_kernels(qkv, options))) return packed_attention_by_kernels(qkv, options, positions, document_offsets);
  if (!takes_fast_path(qkv)) return packed_attention_reference(qkv, options, positions, document_offsets);
  const bool needs_gradient = torch::autograd::compute_requires_grad(qkv);
  auto log_sum_HN = needs_gradient ? at::empty({options.num_heads, qkv.size(0)}, at::kFloat) : Tensor();
  const auto run = [&]<typename Operand>(Operand) {
    Scratch scratch;
    const auto heads = unpack_heads<Operand>(scratch, qkv, options, positions);
    const auto layout = lay_out_keys<Operand>(scratch, heads, document_offsets, options);
    return forward_all(layout.documents, options, heads.queries, needs_gradient ? &log_sum_HN : nullptr, qkv);
  };
  auto out = operands_are_bf16(qkv) ? run(uint16_t{}) : run(float{});
  if (needs_gradient) {
    auto node = std::make_shared<PackedAttentionBackward>();
    node->set_next_edges(torch::autograd::collect_next_edges(qkv));
    node->qkv = qkv.detach();
    node->out = out.detach();
    node->log_sum_HN = log_sum_HN;
    node->options = options;
    node->positions.assign(positions.begin(), positions.end());
    node->offsets.assign(document_offsets.begin(), document_offsets.end());
    torch::autograd::create_gradient_edge(out, node);
  }
  return out;
}

Tensor cached_attention(const Tensor& qkv, const AttentionOptions& options, std::span<const int32_t> positions,
                        std::span<const int32_t> document_offsets, std::span<KeyValueCache* const> caches) {
  check_attention(qkv, options, positions, document_offsets);
  if (takes_kernels(qkv, attention_has_kernels(qkv, options))) return cached_attention_by_kernels(qkv, options, positions, document_offsets, caches);
  if (!qkv.is_cpu()) return cached_attention(qkv.cpu(), on_cpu(options), positions, document_offsets, caches).to(qkv.device());
  const int64_t num_tokens = qkv.size(0), num_kv = options.num_kv_heads, size = options.head_size;
  Scratch scratch;
  const auto heads = unpack_heads<float>(scratch, qkv, options, positions);
  std::vector<DocumentView<float>> documents;
  for (size_t d = 0; d + 1 < document_offsets.size(); ++d) {
    auto& cache = *caches[d];
    const int64_t begin = document_offsets[d], count = document_offsets[d + 1] - begin;
    if (count == 0) continue;
    grow(cache, cache.length + count, num_kv, size);
    for (int64_t kv = 0; kv < num_kv; ++kv) {
      const int64_t source = (kv * num_tokens + begin) * size, target = (kv * cache.capacity + cache.length) * size;
      std::copy_n(heads.keys.const_data_ptr<float>() + source, count * size, cache.keys.data() + target);
      std::copy_n(heads.values.const_data_ptr<float>() + source, count * size, cache.values.data() + target);
    }
    cache.length += count;
    TORCH_INTERNAL_ASSERT(!options.selected_keys_NB.defined() || options.selected_keys_NB.size(1) >= key_bytes(cache.length), "bits for all keys");
    documents.push_back({begin, count, cache.length, cache.keys.data(), cache.values.data(), cache.capacity * size});
  }
  return forward_all(documents, options, heads.queries, nullptr, qkv);
}

}  // namespace graft
