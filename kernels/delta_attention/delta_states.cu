// States from chunk to chunk: S' = B + decay S - M^T (N S). Blocks that do not wait for each other compute B, M = K- and N = W = T beta K+ of all chunks; then a
// block goes through the chunks of a document with 32 columns of one head's state in registers. Back, the same with gradients: delta_outputs.cu makes B there,
// and M and N change places.
#include "kernels/delta_attention/delta_ends.cuh"

namespace graft::cuda {
namespace {

template <typename Shape>
struct ChunkMemory : DeltaMemory<Shape> {
  typename Shape::Rows keys, ended;
  typename Shape::Slice values, updates;
};

template <typename Shape>
GRAFT_KERNEL(Shape::kThreads, 1) delta_chunk_states(const DeltaAttentionForward arguments) {
  using Element = typename Shape::Element;
  constexpr int kPack = kWidestPack<Element>;
  const auto& problem = arguments.problem;
  auto& memory = GRAFT_SHARED(ChunkMemory<Shape>);
  auto& solved = memory.inverse.operand();
  const DeltaPlace place(problem);
  copy_tokens<Shape>(memory.keys, problem.keys, problem.num_key_heads, key_head_of(problem, place.head), place.chunk);
  copy_commit();
  read_gates(memory, problem, place);
  copy_wait<0>();
  block_barrier();
  solve_chunk<Shape, false>(memory, nullptr, nullptr, memory.keys, place);
  end_keys<Shape>(memory.keys, memory, problem, place, [&](int t, int d, const auto& pack) { memory.ended.elements.write_pack(memory.ended.index(t, d), pack); });
  scale_rows<Shape>(memory.keys, [&](int t, int d) { return memory.betas.read(t) * memory.logs.from_begin(t, d); });
  block_barrier();
  Sums solved_keys[Shape::kSizeParts];
  const int key_column = place.column(Shape::kSize), value_column = place.column(Shape::kSlice);
  set_zero(solved_keys);
  add_product<Shape::kChunk, false, true>(solved_keys, solved, place.row, 0, memory.keys, key_column, 0);
  store_sums<Shape>(problem.solved_keys, problem, place, key_column, solved_keys);

  for (int slice = 0; slice < Shape::kSize; slice += Shape::kSlice) {
    for_packs<Shape::kThreads, typename Shape::Element, Shape::kChunk, Shape::kSlice>([&](int t, int c) {
      float values[kPack];
      const auto* row = padded_row<Shape::kSize>(static_cast<const Element*>(problem.values), problem.num_value_heads, place.head, place.token(t));
      load_values(values, row, slice + c, t < place.chunk.count ? Shape::kSize : 0, 0.0F);
      Pack<Element, kPack> pack;
      GRAFT_UNROLL
      for (int k = 0; k < kPack; ++k) pack.values[k] = from_float<Element>(values[k] * memory.betas.read(t));
      memory.values.elements.write_pack(memory.values.index(t, c), pack);
    });
    block_barrier();
    Sums updates[Shape::kSliceParts];
    set_zero(updates);
    add_product<Shape::kChunk, false, true>(updates, solved, place.row, 0, memory.values, value_column, 0);
    write_sums(memory.updates, place.row, value_column, updates, as_is);
    block_barrier();
    add_to_state<Shape>(state_at<Shape>(arguments.states, problem, place.number, place.head), slice, [&](Sums (&sums)[Shape::kSlice / 8], int d) {
      add_product<Shape::kChunk, true, true>(sums, memory.ended, d, 0, memory.updates, 0, 0);
    });
  }
}

template <typename Shape>
struct ScanMemory {
  typename Shape::Rows reads[2], writes[2];   // N and M; the next chunk's travel while this one's are multiplied
  typename Shape::State state;
  typename Shape::Slice read;
};

struct ScanArguments {
  DeltaProblem problem;
  float* states;
  bool back;
};

template <typename Shape>
GRAFT_KERNEL(Shape::kThreads, 1) delta_scan(const ScanArguments arguments) {
  constexpr int kSlices = Shape::kSize / Shape::kSlice, kTiles = Shape::kSize / 16, kOwn = (kTiles + Shape::kWarps - 1) / Shape::kWarps, kParts = Shape::kSlice / 8;
  const auto& problem = arguments.problem;
  auto& memory = GRAFT_SHARED(ScanMemory<Shape>);
  const int slice = static_cast<int>(block_in_grid() % kSlices) * Shape::kSlice, head = static_cast<int>(block_in_grid() / kSlices % problem.num_value_heads);
  const int64_t document = block_in_grid() / kSlices / problem.num_value_heads;
  const int begin = load(problem.first_chunks + document), end = load(problem.first_chunks + document + 1);
  const int warp = thread_in_block() / kWarp, row = warp / 2 * 16, column = warp % 2 * (Shape::kSlice / 2);
  const auto copy = [&](int chunk, int stage) {
    if (chunk >= begin && chunk < end) {
      const DeltaChunk tokens = load(problem.chunks + chunk);
      copy_tokens<Shape>(memory.reads[stage], arguments.back ? problem.ended_keys : problem.solved_keys, problem.num_value_heads, head, tokens);
      copy_tokens<Shape>(memory.writes[stage], arguments.back ? problem.solved_keys : problem.ended_keys, problem.num_value_heads, head, tokens);
    }
    copy_commit();
  };

  Sums state[kOwn][kParts];   // of the rows 16 * (warp + i * warps)
  GRAFT_UNROLL
  for (int i = 0; i < kOwn; ++i) set_zero(state[i]);
  const int step = arguments.back ? -1 : 1;
  int stage = 0;
  copy(arguments.back ? end - 1 : begin, 0);
  for (int chunk = arguments.back ? end - 1 : begin; chunk >= begin && chunk < end; chunk += step) {
    copy(chunk + step, 1 - stage);
    GRAFT_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      const int first = (warp + i * Shape::kWarps) * 16;
      if (first < Shape::kSize) write_sums(memory.state, first, 0, state[i], as_is);
    }
    copy_wait<1>();
    block_barrier();
    Sums read[Shape::kSliceParts];
    set_zero(read);
    add_product<Shape::kSize, false, true>(read, memory.reads[stage], row, 0, memory.state, column, 0);
    write_sums(memory.read, row, column, read, [](int, int, float value) { return -value; });
    block_barrier();
    float* added = state_at<Shape>(arguments.states, problem, chunk, head) + slice;
    const float* decays = problem.chunk_decays + (int64_t(chunk) * problem.num_value_heads + head) * (Shape::kChannel ? Shape::kSize : 1);
    GRAFT_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      const int first = (warp + i * Shape::kWarps) * 16;
      if (first >= Shape::kSize) continue;
      float decay[2];
      GRAFT_UNROLL
      for (int half = 0; half < 2; ++half) decay[half] = load(decays + (Shape::kChannel ? first + lane_group() + half * 8 : 0));
      GRAFT_UNROLL
      for (int part = 0; part < kParts; ++part) {
        GRAFT_UNROLL
        for (int half = 0; half < 2; ++half) {
          const int d = first + lane_group() + half * 8;
          auto* place = reinterpret_cast<Pack<float, 2>*>(added + d * Shape::kSize + part * 8 + lane_pair());
          float& left = state[i][part].values[2 * half];
          float& right = state[i][part].values[2 * half + 1];
          const Pack<float, 2> found = {{left, right}}, of_chunk = load(place);
          store(place, found);
          left = left * decay[half] + of_chunk.values[0];
          right = right * decay[half] + of_chunk.values[1];
        }
      }
      add_product<Shape::kChunk, true, true>(state[i], memory.writes[stage], first, 0, memory.read, 0, 0);
    }
    block_barrier();   // no warp needs this stage any more
    stage = 1 - stage;
  }
  copy_wait<0>();
}

}  // namespace

void launch_chunk_states(const DeltaAttentionForward& arguments, void* stream) {
  for_delta_shape(arguments.problem, [&](auto shape) {
    using Shape = decltype(shape);
    static_assert(sizeof(ChunkMemory<Shape>) <= kLeastSharedBytes, "sm_89 and sm_120 have no more");
    LAUNCH(delta_chunk_states<Shape>, chunk_blocks(arguments.problem), Shape::kThreads, sizeof(ChunkMemory<Shape>), stream, arguments);
  });
}

void launch_scan(const DeltaProblem& problem, float* states, bool back, void* stream) {
  for_delta_shape(problem, [&](auto shape) {
    using Shape = decltype(shape);
    static_assert(sizeof(ScanMemory<Shape>) <= kLeastSharedBytes, "sm_89 and sm_120 have no more");
    LAUNCH(delta_scan<Shape>, int64_t(problem.num_documents) * problem.num_value_heads * (Shape::kSize / Shape::kSlice), Shape::kThreads, sizeof(ScanMemory<Shape>), stream,
           ScanArguments{problem, states, back});
  });
}

}  // namespace graft::cuda
