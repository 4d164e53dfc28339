// A counting sort without atomics: a block counts its chunk of choices, one block makes the counts places and cuts every expert's rows into pieces, then each
// chunk's choices go to their rows. A thread has an expert and goes through the chunk in shared memory, so that equal experts keep their order.
#include "kernels/cuda/shared.cuh"
#include "kernels/router/expert_lists.cuh"

namespace graft::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp, kRun = kMostListedExperts / kThreads;   // experts that a thread of the scan has
constexpr int kPack = 4;

struct ChunkMemory {
  SharedArray<int32_t, kListChunk> experts;
};

GRAFT_DEVICE int64_t num_choices(const ExpertRows& rows) { return rows.num_tokens * rows.choices; }
GRAFT_DEVICE bool exists(const ExpertRows& rows, int64_t expert) { return expert >= 0 && expert < rows.num_experts; }

// -1 where there is no choice or no such expert.
GRAFT_DEVICE void load_chunk(const ExpertRows& rows, int64_t first, ChunkMemory& memory) {
  for (int i = thread_in_block(); i < kListChunk; i += kThreads) {
    const int64_t expert = first + i < num_choices(rows) ? load(rows.chosen_NK + first + i) : -1;
    memory.experts.write(i, exists(rows, expert) ? static_cast<int32_t>(expert) : -1);
  }
  block_barrier();
}

// f(i) on the chunk's choices of an expert, in order.
template <typename Function>
GRAFT_DEVICE void for_choices(const ChunkMemory& memory, int expert, const Function& f) {
  for (int i = 0; i < kListChunk; i += kPack) {
    const auto pack = memory.experts.read_pack<kPack>(i);
    GRAFT_UNROLL
    for (int k = 0; k < kPack; ++k) {
      if (pack.values[k] == expert) f(i + k);
    }
  }
}

GRAFT_KERNEL(kThreads) count_choices(const ExpertLists arguments) {
  auto& memory = GRAFT_SHARED(ChunkMemory);
  const auto& rows = arguments.rows;
  load_chunk(rows, block_in_grid() * kListChunk, memory);
  for (int expert = thread_in_block(); expert < rows.num_experts; expert += kThreads) {
    int32_t count = 0;
    for_choices(memory, expert, [&](int) { ++count; });
    store(arguments.counts + block_in_grid() * rows.num_experts + expert, count);
  }
}

struct ScanMemory {
  SharedArray<int32_t, kMostListedExperts + 1> firsts;
  SharedArray<int32_t, kWarps> of_warp;
};

// firsts[e] = sum of what it was below e, and behind the last expert the sum of all.
GRAFT_DEVICE void scan(ScanMemory& memory, int num_experts) {
  const int thread = thread_in_block(), lane = thread % kWarp, begin = thread * kRun;
  const int end = begin + kRun < num_experts ? begin + kRun : num_experts;
  block_barrier();
  int32_t own = 0;
  for (int expert = begin; expert < end; ++expert) own += memory.firsts.read(expert);
  int32_t inclusive = own;
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int32_t before = shuffle(inclusive, lane >= distance ? lane - distance : lane);
    if (lane >= distance) inclusive += before;
  }
  if (lane == kWarp - 1) memory.of_warp.write(thread / kWarp, inclusive);
  block_barrier();
  int32_t first = inclusive - own;
  for (int warp = 0; warp < thread / kWarp; ++warp) first += memory.of_warp.read(warp);
  for (int expert = begin; expert < end; ++expert) {
    const int32_t count = memory.firsts.read(expert);
    memory.firsts.write(expert, first);
    first += count;
    if (expert == num_experts - 1) memory.firsts.write(num_experts, first);
  }
  block_barrier();
}

// Every expert's rows in pieces of at most `piece_rows`; what the list has room for beyond is not there.
GRAFT_DEVICE void write_pieces(const ExpertRows& rows, const ScanMemory& of_rows, const ScanMemory& of_pieces, int piece_rows, ExpertPiece* pieces, int room) {
  const int num_pieces = of_pieces.firsts.read(rows.num_experts);
  for (int piece = thread_in_block(); piece < room; piece += kThreads) {
    if (piece >= num_pieces) {
      store(pieces + piece, ExpertPiece{-1, 0, 0, 0});
      continue;
    }
    int expert = 0, beyond = rows.num_experts;   // the last expert whose first piece is not behind this one
    while (beyond - expert > 1) {
      const int middle = (expert + beyond) / 2;
      (of_pieces.firsts.read(middle) <= piece ? expert : beyond) = middle;
    }
    const int first = of_rows.firsts.read(expert) + (piece - of_pieces.firsts.read(expert)) * piece_rows, left = of_rows.firsts.read(expert + 1) - first;
    store(pieces + piece, ExpertPiece{expert, first, left < piece_rows ? left : piece_rows, 0});
  }
}

struct PlaceMemory {
  ScanMemory rows, tiles, spans;
};

GRAFT_KERNEL(kThreads) place_experts(const ExpertLists arguments, int64_t chunks) {
  auto& memory = GRAFT_SHARED(PlaceMemory);
  const auto& rows = arguments.rows;
  for (int expert = thread_in_block(); expert < rows.num_experts; expert += kThreads) {
    int32_t count = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) count += load(arguments.counts + chunk * rows.num_experts + expert);
    memory.rows.firsts.write(expert, count);
    memory.tiles.firsts.write(expert, (count + rows.tile_rows - 1) / rows.tile_rows);
    memory.spans.firsts.write(expert, (count + kExpertSpan - 1) / kExpertSpan);
  }
  scan(memory.rows, rows.num_experts);
  scan(memory.tiles, rows.num_experts);
  scan(memory.spans, rows.num_experts);
  for (int expert = thread_in_block(); expert < rows.num_experts; expert += kThreads) {
    int32_t next = memory.rows.firsts.read(expert);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      int32_t* count = arguments.counts + chunk * rows.num_experts + expert;
      const int32_t of_chunk = load(count);
      store(count, next);
      next += of_chunk;
    }
  }
  for (int expert = thread_in_block(); expert <= rows.num_experts; expert += kThreads) store(rows.first_span_E1 + expert, memory.spans.firsts.read(expert));
  write_pieces(rows, memory.rows, memory.tiles, rows.tile_rows, rows.tiles, rows.num_tiles);
  write_pieces(rows, memory.rows, memory.spans, kExpertSpan, rows.spans, rows.num_spans);
}

GRAFT_KERNEL(kThreads) place_choices(const ExpertLists arguments) {
  auto& memory = GRAFT_SHARED(ChunkMemory);
  const auto& rows = arguments.rows;
  const int64_t first = block_in_grid() * kListChunk;
  load_chunk(rows, first, memory);
  for (int expert = thread_in_block(); expert < rows.num_experts; expert += kThreads) {
    int32_t next = load(arguments.counts + block_in_grid() * rows.num_experts + expert);
    for_choices(memory, expert, [&](int i) {
      store(rows.order_M + next, static_cast<int32_t>(first + i));
      store(rows.place_NK + first + i, next++);
    });
  }
  for (int i = thread_in_block(); i < kListChunk && first + i < num_choices(rows); i += kThreads) {
    if (memory.experts.read(i) < 0) store(rows.place_NK + first + i, int32_t(-1));
  }
}

}  // namespace

const char* launch(const ExpertLists& arguments, void* stream) {
  if (arguments.rows.num_experts > kMostListedExperts) return "no lists for so many experts";
  const int64_t chunks = list_chunks(arguments.rows.num_tokens * arguments.rows.choices);
  if (chunks > 0) LAUNCH(count_choices, chunks, kThreads, sizeof(ChunkMemory), stream, arguments);
  LAUNCH(place_experts, 1, kThreads, sizeof(PlaceMemory), stream, arguments, chunks);
  if (chunks > 0) LAUNCH(place_choices, chunks, kThreads, sizeof(ChunkMemory), stream, arguments);
  return launch_error();
}

}  // namespace graft::cuda
