// Launch arguments of the lists by which kernels find an expert's rows. M = N * K choices, sorted by expert, then token: row m is choice order[m] = n * K + k.
// Everything stays on the device; the host knows only how many pieces there are at most. A choice beyond the experts has no row.
#pragma once
#include <cstdint>

namespace graft::cuda {

constexpr int kMostListedExperts = 1024, kListChunk = 1024;   // choices that a block sorts
constexpr int kExpertSpan = 2048;                             // rows that a block sums over

// Rows [first, first + rows) of an expert, all others' pieces apart. expert -1: a piece that is not there.
struct alignas(16) ExpertPiece {
  int32_t expert, first, rows, unused;
};

struct ExpertRows {
  int64_t num_tokens;
  int choices, num_experts;
  int tile_rows;               // of a piece in `tiles`, at most; of one in `spans`: kExpertSpan
  int num_tiles, num_spans;    // pieces that the lists have room for, most_pieces()
  const int64_t* chosen_NK;
  int32_t* order_M;
  int32_t* place_NK;           // of a choice: its row; -1: none
  ExpertPiece* tiles;
  ExpertPiece* spans;
  int32_t* first_span_E1;      // of an expert, and behind the last
};

// As many pieces as any routing makes of `rows` rows.
constexpr int64_t most_pieces(int64_t rows, int64_t num_experts, int64_t piece_rows) { return rows / piece_rows + (rows < num_experts ? rows : num_experts); }

struct ExpertLists {
  ExpertRows rows;             // written, but for chosen_NK
  int32_t* counts;             // [chunks, E], for a while
};
constexpr int64_t list_chunks(int64_t num_choices) { return (num_choices + kListChunk - 1) / kListChunk; }

// Null, or the driver's words. `stream` is a cudaStream_t.
const char* launch(const ExpertLists& arguments, void* stream);

}  // namespace graft::cuda
