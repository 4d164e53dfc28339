#include "kernels/attention/attention_device.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/functions/utils.h>

#include "kernels/attention/attention_tiles.h"
#include "kernels/device_launch/device_launch.h"
#include "kernels/device_launch/row_type.h"
#include "kernels/device_launch/uploaded.h"

namespace graft {
namespace {

using at::Tensor;

template <typename T>
const T* data_or_null(const Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr<T>() : nullptr; }

// Heads of `size` elements within rows of x, from `column` on.
cuda::HeadRows heads_at(const Tensor& x, int64_t column, int64_t size) {
  return {static_cast<const char*>(x.const_data_ptr()) + column * static_cast<int64_t>(x.element_size()), x.size(1), size};
}
cuda::MutableHeadRows heads_in(Tensor& x, int64_t column, int64_t size) {
  return {static_cast<char*>(x.data_ptr()) + column * static_cast<int64_t>(x.element_size()), x.size(1), size};
}

// What both passes tell the kernels of one batch. cached: earlier tokens of each document, where they are in caches (and then there is no backward pass).
struct KernelAttention {
  AttentionOptions options;
  int64_t num_tokens = 0;
  int num_documents = 0;
  Tensor query_tiles, key_tiles, offsets, positions;   // int32
  Tensor cosine, sine, query_scale, query_norm, key_norm, slopes, sinks, selected;

  KernelAttention(const Tensor& qkv, const AttentionOptions& of, std::span<const int32_t> token_positions, std::span<const int32_t> document_offsets,
                  std::span<const int32_t> cached = {})
      : options(of), num_tokens(qkv.size(0)), num_documents(static_cast<int>(document_offsets.size()) - 1), offsets(uploaded(document_offsets, qkv)) {
    const bool is_float32 = qkv.scalar_type() == at::kFloat;
    const int size = cuda::attention_head_size(static_cast<int>(options.head_size), static_cast<int>(options.head_size));
    const auto tiles = [&](TileOf kind, int rows) {
      const auto host = attention_tiles(kind, document_offsets, static_cast<int32_t>(options.shared_prefix), static_cast<int32_t>(options.window), rows, cached);
      return uploaded(std::span<const cuda::AttentionTile>(host), qkv);
    };
    const bool is_plain = cuda::attention_is_plain(row_type(qkv), options.softcap > 0, options.alibi_slopes_H.defined(), options.selected_keys_NB.defined(), !cached.empty());
    query_tiles = tiles(TileOf::kQueries, cuda::attention_query_rows(is_float32, is_plain, size));
    if (cached.empty()) key_tiles = tiles(TileOf::kKeys, cuda::attention_key_rows(is_float32, size));
    if (prepares()) positions = uploaded(token_positions, qkv);
    const auto table = [&](const Tensor& tensor) { return tensor.defined() ? for_kernels(tensor) : tensor; };
    cosine = table(options.cosine_PE);
    sine = table(options.sine_PE);
    query_scale = table(options.query_scale_P);
    query_norm = table(options.query_norm_D);
    key_norm = table(options.key_norm_D);
    slopes = table(options.alibi_slopes_H);
    sinks = table(options.sinks_H);
    selected = table(options.selected_keys_NB);
  }

  bool prepares() const { return options.cosine_PE.defined() || options.query_norm_D.defined() || options.key_norm_D.defined() || options.query_scale_P.defined(); }
  int64_t prepared_width() const { return (options.num_heads + options.num_kv_heads) * options.head_size; }
  int count_of_tiles(const Tensor& tiles) const { return static_cast<int>(tiles.numel() * static_cast<int64_t>(sizeof(int32_t)) / static_cast<int64_t>(sizeof(cuda::AttentionTile))); }
  static const cuda::AttentionTile* tiles_of(const Tensor& tiles) { return static_cast<const cuda::AttentionTile*>(tiles.const_data_ptr()); }

  cuda::HeadPreparation preparation(const Tensor& qkv) const {
    return {heads_at(qkv, 0, options.head_size), row_type(qkv), static_cast<int>(num_tokens), static_cast<int>(options.num_heads), static_cast<int>(options.num_kv_heads),
            static_cast<int>(options.head_size), data_or_null<float>(query_norm), data_or_null<float>(key_norm), static_cast<float>(options.head_norm_epsilon), options.norm_after_rotation,
            data_or_null<float>(cosine), data_or_null<float>(sine), cosine.defined() ? static_cast<int>(cosine.size(1)) : 0, options.neighbouring_pairs, data_or_null<float>(query_scale),
            data_or_null<int32_t>(positions)};
  }

  // prepared: queries and keys as attention takes them, or qkv itself.
  cuda::AttentionProblem problem(const Tensor& qkv, const Tensor& prepared) const {
    const int64_t size = options.head_size;
    return {heads_at(prepared, 0, size), heads_at(prepared, options.num_heads * size, size), heads_at(qkv, prepared_width(), size), row_type(qkv), static_cast<int>(options.num_heads),
            static_cast<int>(options.num_kv_heads), static_cast<int>(size), static_cast<int>(size), static_cast<float>(options.scale), static_cast<float>(options.softcap),
            static_cast<int>(options.window), static_cast<int>(options.shared_prefix), data_or_null<float>(slopes), data_or_null<float>(sinks), data_or_null<uint8_t>(selected),
            selected.defined() ? selected.size(1) : 0, static_cast<int>(num_tokens)};
  }

  Tensor prepare(const Tensor& qkv) const {
    if (!prepares()) return qkv;
    auto prepared = at::empty({num_tokens, prepared_width()}, qkv.options());
    launch_on(qkv, "attention", cuda::HeadPreparationForward{preparation(qkv), heads_in(prepared, 0, options.head_size)});
    return prepared;
  }

  void append(const Tensor& qkv, const Tensor& prepared, const cuda::CachedRows* caches) const {
    const auto of = problem(qkv, prepared);
    launch_on(qkv, "attention with a cache",
              cuda::AttentionCacheAppend{of.keys, of.values, of.type, of.num_kv_heads, of.head_size, of.value_size, tiles_of(query_tiles), count_of_tiles(query_tiles), caches});
  }

  Tensor forward(const Tensor& qkv, const Tensor& prepared, Tensor& log_sums, const cuda::CachedRows* caches = nullptr) const {
    auto out = at::empty({num_tokens, options.num_heads * options.head_size}, qkv.options());
    auto of = problem(qkv, prepared);
    if (caches) of.keys.token_stride = of.values.token_stride = options.num_kv_heads * options.head_size;
    launch_on(qkv, "attention",
              cuda::AttentionForward{of, tiles_of(query_tiles), count_of_tiles(query_tiles), heads_in(out, 0, options.head_size), log_sums.data_ptr<float>(), caches});
    return out;
  }

  Tensor backward(const Tensor& qkv, const Tensor& prepared, const Tensor& out, const Tensor& log_sums, const Tensor& gradient) const {
    const int64_t size = options.head_size;
    auto qkv_gradient = at::empty_like(qkv), prepared_gradient = prepares() ? at::empty_like(prepared) : qkv_gradient;
    auto delta = at::empty_like(log_sums);
    launch_on(qkv, "attention backward",
              cuda::AttentionBackward{problem(qkv, prepared), tiles_of(query_tiles), count_of_tiles(query_tiles), tiles_of(key_tiles), count_of_tiles(key_tiles), offsets.const_data_ptr<int32_t>(),
                                      num_documents, heads_at(out, 0, size), heads_at(gradient, 0, size), log_sums.const_data_ptr<float>(), delta.data_ptr<float>(),
                                      heads_in(prepared_gradient, 0, size), heads_in(prepared_gradient, options.num_heads * size, size), heads_in(qkv_gradient, prepared_width(), size)});
    if (prepares()) {
      launch_on(qkv, "attention backward", cuda::HeadPreparationBackward{preparation(qkv), heads_at(prepared_gradient, 0, size), heads_in(qkv_gradient, 0, size)});
    }
    return qkv_gradient;
  }
};

struct KernelAttentionBackward : torch::autograd::Node {
  std::shared_ptr<const KernelAttention> attention;
  Tensor qkv, prepared, out, log_sums;   // out shares storage with the result but not its history: no cycle

  std::string name() const override { return "KernelAttentionBackward"; }
  void release_variables() override { qkv = prepared = out = log_sums = Tensor(); }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    if (!gradients[0].defined()) return {Tensor()};
    return {attention->backward(qkv, prepared, out, log_sums, for_kernels(gradients[0]))};
  }
};

// Makes room for `count` further tokens. What another state shares is left to it.
void grow_rows(KeyValueCache& cache, int64_t count, int64_t width, const Tensor& like) {
  const int64_t needed = cache.length + count;
  for (auto* rows : {&cache.device_keys_TC, &cache.device_values_TC}) {
    const int64_t capacity = rows->defined() ? rows->size(0) : 0;
    if (capacity >= needed && rows->use_count() == 1) continue;
    auto own = at::empty({capacity >= needed ? capacity : std::max({needed, cache.reserved, 2 * capacity}), width}, like.options());
    if (cache.length > 0) own.narrow(0, 0, cache.length).copy_(rows->narrow(0, 0, cache.length));
    *rows = std::move(own);
  }
}

}  // namespace

bool attention_has_kernels(const Tensor& qkv, const AttentionOptions& options) {
  const auto type = qkv.scalar_type();
  if (type != at::kFloat && type != at::kBFloat16 && type != at::kHalf) return false;
  const int size = static_cast<int>(options.head_size);
  return cuda::attention_head_size(size, size) != 0 && size * static_cast<int64_t>(qkv.element_size()) % 16 == 0;
}

Tensor packed_attention_by_kernels(const Tensor& qkv_NC, const AttentionOptions& options, std::span<const int32_t> positions, std::span<const int32_t> document_offsets) {
  const auto qkv = for_kernels(qkv_NC.detach());
  const auto attention = std::make_shared<const KernelAttention>(qkv, options, positions, document_offsets);
  auto log_sums = at::empty({options.num_heads, qkv.size(0)}, qkv.options().dtype(at::kFloat));
  const auto prepared = attention->prepare(qkv);
  auto out = attention->forward(qkv, prepared, log_sums);
  if (torch::autograd::compute_requires_grad(qkv_NC)) {
    auto node = std::make_shared<KernelAttentionBackward>();
    node->set_next_edges(torch::autograd::collect_next_edges(qkv_NC));
    node->attention = attention;
    node->qkv = qkv;
    node->prepared = prepared;
    node->out = out.detach();
    node->log_sums = log_sums;
    torch::autograd::create_gradient_edge(out, node);
  }
  return out;
}

Tensor cached_attention_by_kernels(const Tensor& qkv_NC, const AttentionOptions& options, std::span<const int32_t> positions, std::span<const int32_t> document_offsets,
                                   std::span<KeyValueCache* const> caches) {
  const auto qkv = for_kernels(qkv_NC.detach());
  std::vector<int32_t> lengths;
  std::vector<cuda::CachedRows> rows;
  for (size_t d = 0; d < caches.size(); ++d) {
    auto& cache = *caches[d];
    const int64_t count = document_offsets[d + 1] - document_offsets[d];
    if (count > 0) grow_rows(cache, count, options.num_kv_heads * options.head_size, qkv);
    lengths.push_back(static_cast<int32_t>(cache.length));
    rows.push_back(count > 0 ? cuda::CachedRows{cache.device_keys_TC.data_ptr(), cache.device_values_TC.data_ptr()} : cuda::CachedRows{});
    cache.length += count;
  }
  const KernelAttention attention(qkv, options, positions, document_offsets, lengths);
  const auto prepared = attention.prepare(qkv);
  const auto rows_on_device = uploaded(std::span<const cuda::CachedRows>(rows), qkv);
  const auto* of_documents = static_cast<const cuda::CachedRows*>(rows_on_device.const_data_ptr());
  attention.append(qkv, prepared, of_documents);
  auto log_sums = at::empty({options.num_heads, qkv.size(0)}, qkv.options().dtype(at::kFloat));
  return attention.forward(qkv, prepared, log_sums, of_documents);
}

}  // namespace graft
