// Launch arguments of attention on heads that are already normalised and turned (formula in attention.h). Pointers are device memory.
#pragma once
#include <cstdint>
#include <initializer_list>

#include "kernels/cuda/row_type.cuh"

namespace graft::cuda {

// [N, heads, size] within wider rows: element (n, h, c) is at n * token_stride + h * head_stride + c. Pointer and strides: multiples of 16 bytes.
struct HeadRows {
  const void* data;
  int64_t token_stride, head_stride;
};
struct MutableHeadRows {
  void* data;
  int64_t token_stride, head_stride;
};

struct AttentionProblem {
  HeadRows queries, keys, values;   // keys and values: num_kv_heads heads
  RowType type;
  int num_heads, num_kv_heads;
  int head_size, value_size;        // multiples of 16 bytes; attention_head_size() says what is taken
  float scale, softcap;             // softcap 0: none
  int window;                       // 0: all
  int shared_prefix;
  const float* slopes_H;            // null: none
  const float* sinks_H;             // null: none
  const uint8_t* selected_NB;       // null: all
  int64_t selected_stride;
  int num_tokens;
};

// Some neighbouring tokens of one document: queries whose keys the block goes through, or keys whose queries it does. Tokens are rows of the batch.
struct AttentionTile {
  int32_t document_begin, document_end;   // where earlier tokens are in a cache: as if they stood before the document's rows, so begin may be negative
  int32_t before;                         // keys of the shared prefix, which the document sees as if they stood before its own
  int32_t first, count;
  int32_t document;                       // which, from 0
};

// Where all keys and values of a document are that has tokens of earlier batches: [its tokens, num_kv_heads, size], of the queries' type.
struct CachedRows {
  void* keys;
  void* values;
};

// Puts a batch's keys and values behind those of earlier tokens.
struct AttentionCacheAppend {
  HeadRows keys, values;
  RowType type;
  int num_kv_heads, head_size, value_size;   // sizes: multiples of 16 bytes
  const AttentionTile* tiles;
  int num_tiles;
  const CachedRows* caches;
};

struct AttentionForward {
  AttentionProblem problem;
  const AttentionTile* tiles;       // of queries (attention_tiles.h), attention_query_rows() each
  int num_tiles;
  MutableHeadRows out;              // [N, H, value_size]
  float* log_sums_HN;               // base 2, of scores times log2(e), sinks included
  const CachedRows* caches;         // of each document, with the strides of the problem's keys and values; null: these are the batch's own
};

struct AttentionBackward {
  AttentionProblem problem;
  const AttentionTile* query_tiles;   // attention_query_rows() each
  int num_query_tiles;
  const AttentionTile* key_tiles;     // attention_key_rows() each
  int num_key_tiles;
  const int32_t* document_offsets;
  int num_documents;
  HeadRows out, gradient;             // of out
  const float* log_sums_HN;
  float* delta_HN;                    // scratch: the sum over a row of out * gradient
  MutableHeadRows query_gradient, key_gradient, value_gradient;
};

// The kernel's head size that takes heads of this size, or 0: none does. Those with values of another size are MLA's 192 and 128.
inline int attention_head_size(int head_size, int value_size) {
  if (head_size < 1 || value_size < 1) return 0;
  if (head_size != value_size) return head_size <= 192 && value_size <= 128 ? 192 : head_size <= 256 && value_size <= 256 ? 256 : 0;
  for (const int size : {64, 80, 96, 128, 192, 256}) {
    if (head_size <= size) return size;
  }
  return 0;
}

// Kernels of their own, with larger tiles, take what most models are: no softcap, slopes, selected keys or caches, and 16 bits.
inline bool attention_is_plain(RowType type, bool softcap, bool slopes, bool selected, bool cached) { return type != RowType::kFloat32 && !softcap && !slopes && !selected && !cached; }

// Tokens of a tile of keys.
constexpr int attention_key_rows(bool is_float32, int kernel_head_size) { return !is_float32 || kernel_head_size <= 128 ? 64 : kernel_head_size <= 192 ? 32 : 16; }
// Sixteen queries lie on top of each other in a warp's registers so often: what it reads of a key serves all of them.
constexpr int attention_stacks(bool is_plain, int kernel_head_size) { return is_plain && kernel_head_size <= 128 ? 2 : 1; }
// Tokens of a tile of queries.
constexpr int attention_query_rows(bool is_float32, bool is_plain, int kernel_head_size) {
  return attention_stacks(is_plain, kernel_head_size) * attention_key_rows(is_float32, kernel_head_size);
}

// Null, or the driver's words. `stream` is a cudaStream_t.
const char* launch(const AttentionForward& arguments, void* stream);
const char* launch(const AttentionBackward& arguments, void* stream);
const char* launch(const AttentionCacheAppend& arguments, void* stream);

}  // namespace graft::cuda
