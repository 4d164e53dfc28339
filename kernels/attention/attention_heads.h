// The CPU path's heads: [N, (H + 2K) * D] taken apart into operands by head (norm and rotation on the way), rows of keys laid out by document, and the
// gradients put together again. Operand: see operands.h.
#pragma once
#include <algorithm>
#include <span>
#include <vector>

#include <ATen/Parallel.h>

#include "kernels/attention/attention.h"
#include "kernels/elementwise/typed_rows.h"
#include "kernels/matrix_product/operands.h"
#include "kernels/scratch/scratch.h"

namespace graft::attention_heads {

using at::Tensor;

// Where one document's queries, keys and values lie. Queries are the last `num_queries` of `num_keys` tokens.
template <typename Operand>
struct DocumentView {
  int64_t query_begin = 0, num_queries = 0, num_keys = 0;
  const Operand* keys = nullptr;   // of head 0; heads are key_head_stride apart, tokens D apart
  const Operand* values = nullptr;
  int64_t key_head_stride = 0;
};

struct Heads {   // of operands, [heads, N, D]
  Tensor queries, keys, values;
};

template <typename Operand>
Operand* data_of(const Tensor& tensor) { return static_cast<Operand*>(tensor.data_ptr()); }

// Runs f(token, pointer to its rotary cosines, sines) over all tokens in parallel.
template <typename Function>
void for_each_token(int64_t num_tokens, const AttentionOptions& options, std::span<const int32_t> positions, const Function& function) {
  const bool rotated = options.cosine_PE.defined();
  const int64_t half = rotated ? options.cosine_PE.size(1) : 0;
  const float* cosine = rotated ? options.cosine_PE.const_data_ptr<float>() : nullptr;
  const float* sine = rotated ? options.sine_PE.const_data_ptr<float>() : nullptr;
  at::parallel_for(0, num_tokens, 8, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      if (rotated) {
        function(n, cosine + positions[n] * half, sine + positions[n] * half);
      } else {
        function(n, static_cast<const float*>(nullptr), static_cast<const float*>(nullptr));
      }
    }
  });
}

// Turns the part of a head that the tables cover. Null cosines: nothing turns.
void turn(float* head, const float* cosine, const float* sine, const AttentionOptions& options, bool inverse);

template <typename Operand>
Heads unpack_heads(Scratch& scratch, const Tensor& qkv, const AttentionOptions& options, std::span<const int32_t> positions) {
  const int64_t num_tokens = qkv.size(0), num_heads = options.num_heads, num_kv = options.num_kv_heads, size = options.head_size;
  const auto heads_of = [&](int64_t count) { return scratch.tensor({count, num_tokens, size}, kOperandType<Operand>); };
  Heads heads{heads_of(num_heads), heads_of(num_kv), heads_of(num_kv)};
  const float* query_scales = options.query_scale_P.defined() ? options.query_scale_P.const_data_ptr<float>() : nullptr;
  visit_elements(qkv, [&](const auto* data) {
    for_each_token(num_tokens, options, positions, [&](int64_t n, const float* cosine, const float* sine) {
      thread_local std::vector<float> wide;
      wide.resize(size);
      const auto unpack = [&](const auto* source, int64_t count, Tensor& target, const Tensor& norm, const float* cosine, float scale) {
        for (int64_t h = 0; h < count; ++h) {
          float* head = wide.data();
          rows::to_float(source + h * size, size, head);
          if (options.norm_after_rotation) turn(head, cosine, sine, options, false);
          if (norm.defined()) {
            rows::rms_norm(head, norm.const_data_ptr<float>(), size, static_cast<float>(options.head_norm_epsilon), head);
          }
          if (!options.norm_after_rotation) turn(head, cosine, sine, options, false);
          if (scale != 1) rows::scale(head, size, scale);
          rows::from_float(head, size, data_of<Operand>(target) + (h * num_tokens + n) * size);
        }
      };
      const auto* row = data + n * qkv.size(1);
      unpack(row, num_heads, heads.queries, options.query_norm_D, cosine, query_scales ? query_scales[positions[n]] : 1);
      unpack(row + num_heads * size, num_kv, heads.keys, options.key_norm_D, cosine, 1);
      unpack(row + (num_heads + num_kv) * size, num_kv, heads.values, Tensor(), nullptr, 1);
    });
  });
  return heads;
}

// Rows of keys and values, document after document: those of the shared prefix stand again before every document but the first.
template <typename Operand>
struct KeyRows {
  std::vector<int64_t> token_of_row;     // empty: row m is token m
  std::vector<DocumentView<Operand>> documents;   // with pointers into `keys` and `values`, [K, M, D]
  std::vector<int64_t> first_row;        // of each document
  Tensor keys, values;
  int64_t num_rows = 0;
};

template <typename Operand>
KeyRows<Operand> lay_out_keys(Scratch& scratch, const Heads& heads, std::span<const int32_t> offsets, const AttentionOptions& options) {
  KeyRows<Operand> layout;
  const int64_t num_tokens = heads.keys.size(1), num_kv = options.num_kv_heads, size = options.head_size, prefix = options.shared_prefix;
  for (size_t d = 0; d + 1 < offsets.size(); ++d) {
    const int64_t begin = offsets[d], length = offsets[d + 1] - begin;
    if (length == 0) continue;
    const int64_t before = begin == 0 ? 0 : prefix;
    layout.documents.push_back({begin, length, before + length, nullptr, nullptr, 0});
    layout.first_row.push_back(layout.num_rows);
    layout.num_rows += before + length;
    if (prefix == 0) continue;
    for (int64_t n = 0; n < before; ++n) layout.token_of_row.push_back(n);
    for (int64_t n = begin; n < begin + length; ++n) layout.token_of_row.push_back(n);
  }
  const auto laid_out = [&](const Tensor& x_KND) {
    if (prefix == 0) return x_KND;
    auto rows_KMD = scratch.tensor({num_kv, layout.num_rows, size}, kOperandType<Operand>);
    const auto* source = data_of<const Operand>(x_KND);
    auto* target = data_of<Operand>(rows_KMD);
    at::parallel_for(0, num_kv * layout.num_rows, 512, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t kv = i / layout.num_rows, token = layout.token_of_row[i % layout.num_rows];
        std::copy_n(source + (kv * num_tokens + token) * size, size, target + i * size);
      }
    });
    return rows_KMD;
  };
  layout.keys = laid_out(heads.keys);
  layout.values = laid_out(heads.values);
  for (size_t d = 0; d < layout.documents.size(); ++d) {
    layout.documents[d].keys = data_of<const Operand>(layout.keys) + layout.first_row[d] * size;
    layout.documents[d].values = data_of<const Operand>(layout.values) + layout.first_row[d] * size;
    layout.documents[d].key_head_stride = layout.num_rows * size;
  }
  return layout;
}

// [heads, M, D] of key rows to [heads, N, D] of tokens: a token of the shared prefix gets the sum over documents, in their order.
template <typename Operand>
Tensor sum_to_tokens(Scratch& scratch, const Tensor& rows_HMD, const KeyRows<Operand>& layout, int64_t num_tokens) {
  if (layout.token_of_row.empty()) return rows_HMD;
  const int64_t num_heads = rows_HMD.size(0), size = rows_HMD.size(2);
  auto tokens_HND = scratch.tensor({num_heads, num_tokens, size}).zero_();
  at::parallel_for(0, num_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) {
      for (int64_t m = 0; m < layout.num_rows; ++m) {
        rows::add(tokens_HND.data_ptr<float>() + (h * num_tokens + layout.token_of_row[m]) * size,
                  rows_HMD.const_data_ptr<float>() + (h * layout.num_rows + m) * size, size);
      }
    }
  });
  return tokens_HND;
}

// [N, H*D] of either type to operands [H, N, D].
template <typename Operand>
Tensor by_head(Scratch& scratch, const Tensor& x, const AttentionOptions& options) {
  const int64_t num_tokens = x.size(0), num_heads = options.num_heads, size = options.head_size;
  auto result = scratch.tensor({num_heads, num_tokens, size}, kOperandType<Operand>);
  visit_elements(x, [&](const auto* source) {
    at::parallel_for(0, num_tokens, 16, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        for (int64_t h = 0; h < num_heads; ++h) {
          const auto* head = source + (n * num_heads + h) * size;
          auto* target = data_of<Operand>(result) + (h * num_tokens + n) * size;
          if constexpr (std::is_same_v<Operand, std::remove_cvref_t<decltype(*head)>>) {
            std::copy_n(head, size, target);
          } else if constexpr (std::is_same_v<Operand, float>) {
            rows::to_float(head, size, target);
          } else {
            TORCH_INTERNAL_ASSERT(false, "bfloat16 operands come of bfloat16 tensors");
          }
        }
      }
    });
  });
  return result;
}

// Gradients of heads [heads, N, D], float32, as one of qkv: sums dk and dv over each group of query heads, turns back, undoes the head norms.
at::Tensor pack_gradients(const at::Tensor& qkv, const AttentionOptions& options, std::span<const int32_t> positions, const at::Tensor& dq_HND,
                          const at::Tensor& dk_HND, const at::Tensor& dv_HND);

}  // namespace graft::attention_heads
