// What comes before the delta rule: the causal convolution with silu, and the norm of queries and keys. A block has the tokens of a chunk and one head's
// channels, a warp a token at a time, a lane four channels. Bound by memory.
#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/row_values.cuh"
#include "kernels/delta_attention/delta_kernels.cuh"

namespace graft::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp, kLane = kMostDeltaSize / kWarp;
constexpr int kMostRows = delta_chunk_tokens(false, false) + kMostDeltaTaps - 1;

// Channels of one head: blocks have queries of all key heads, then keys, then values.
struct Channels {
  int number, first, size;   // head; channel of qkv; channels
  bool is_query, is_key;
  float scale;

  GRAFT_DEVICE Channels(const DeltaProblem& problem, int block) {
    const int key_heads = problem.num_key_heads;
    is_query = block < key_heads;
    is_key = !is_query && block < 2 * key_heads;
    number = is_query ? block : is_key ? block - key_heads : block - 2 * key_heads;
    size = normed() ? problem.key_size : problem.value_size;
    first = normed() ? block * problem.key_size : 2 * key_heads * problem.key_size + number * problem.value_size;
    scale = is_query ? 1 / square_root(static_cast<float>(problem.key_size)) : 1.0F;
  }
  GRAFT_DEVICE bool normed() const { return is_query || is_key; }
};

GRAFT_DEVICE int64_t row_of_qkv(const DeltaProblem& problem) {
  return 2 * int64_t(problem.num_key_heads) * problem.key_size + int64_t(problem.num_value_heads) * problem.value_size;
}
GRAFT_DEVICE int lane_channel() { return thread_in_block() % kWarp * kLane; }
GRAFT_DEVICE float weight_of(const DeltaProblem& problem, const Channels& channels, int k, int tap) {
  const int channel = lane_channel() + k;
  return channel < channels.size ? load(problem.convolution_CK + int64_t(channels.first + channel) * problem.taps + tap) : 0.0F;
}

// Before silu, this lane's channels.
template <typename Element>
GRAFT_DEVICE void convolve(const DeltaProblem& problem, const Channels& channels, int document_begin, int token, float (&sums)[kLane]) {
  for (int k = 0; k < kLane; ++k) sums[k] = 0;
  for (int tap = 0; tap < problem.taps; ++tap) {
    const int source = token - (problem.taps - 1 - tap);
    if (source < document_begin) continue;
    float x[kLane];
    load_values(x, static_cast<const Element*>(problem.qkv_NC) + source * row_of_qkv(problem) + channels.first, lane_channel(), channels.size, 0.0F);
    GRAFT_UNROLL
    for (int k = 0; k < kLane; ++k) sums[k] += weight_of(problem, channels, k, tap) * x[k];
  }
}

GRAFT_DEVICE float warp_product(const float (&a)[kLane], const float (&b)[kLane]) {
  float sum = 0;
  GRAFT_UNROLL
  for (int k = 0; k < kLane; ++k) sum += a[k] * b[k];
  return warp_sum(sum);
}

template <typename Element, int kSize>
GRAFT_KERNEL(kThreads) delta_rows(const DeltaProblem problem) {
  const int parts = 2 * problem.num_key_heads + problem.num_value_heads;
  const Channels channels(problem, static_cast<int>(block_in_grid() % parts));
  const DeltaChunk chunk = load(problem.chunks + block_in_grid() / parts);
  auto* rows = static_cast<Element*>(channels.is_query ? problem.queries : channels.is_key ? problem.keys : problem.values);
  const int heads = channels.normed() ? problem.num_key_heads : problem.num_value_heads;
  for (int row = thread_in_block() / kWarp; row < chunk.count; row += kWarps) {
    float x[kLane];
    convolve<Element>(problem, channels, chunk.document_begin, chunk.first + row, x);
    GRAFT_UNROLL
    for (int k = 0; k < kLane; ++k) x[k] *= sigmoid(x[k]);
    const float factor = channels.normed() ? channels.scale * inverse_square_root(warp_product(x, x) + kDeltaNormEpsilon) : 1.0F;
    GRAFT_UNROLL
    for (int k = 0; k < kLane; ++k) x[k] *= factor;
    if (lane_channel() < kSize) store_values(padded_row<kSize>(rows, heads, channels.number, chunk.first + row), lane_channel(), kSize, x);
  }
}

struct BackwardMemory {
  SharedArray<float, kMostRows * kMostDeltaSize> slopes;   // of the convolution's sums
};

// The gradient of what delta_rows wrote, this lane's channels: of a key head, the sum over the value heads that read it.
template <typename Element, int kSize>
GRAFT_DEVICE void gradient_of(const DeltaAttentionBackward& arguments, const Channels& channels, int token, float (&gradient)[kLane]) {
  const auto& problem = arguments.problem;
  const auto* rows = static_cast<const Element*>(channels.is_query ? arguments.dqueries : channels.is_key ? arguments.dkeys : arguments.dvalues);
  const int count = channels.normed() ? problem.num_value_heads / problem.num_key_heads : 1;
  for (int k = 0; k < kLane; ++k) gradient[k] = 0;
  if (lane_channel() >= kSize) return;
  for (int i = 0; i < count; ++i) {
    const int head = channels.normed() ? value_head_of(problem, channels.number, i) : channels.number;
    float of_head[kLane];
    load_values(of_head, padded_row<kSize>(rows, problem.num_value_heads, head, token), lane_channel(), kSize, 0.0F);
    GRAFT_UNROLL
    for (int k = 0; k < kLane; ++k) gradient[k] += of_head[k];
  }
}

template <typename Element, int kSize>
GRAFT_KERNEL(kThreads) delta_rows_backward(const DeltaAttentionBackward arguments) {
  const auto& problem = arguments.problem;
  auto& memory = GRAFT_SHARED(BackwardMemory);
  const int parts = 2 * problem.num_key_heads + problem.num_value_heads, later = problem.taps - 1;
  const Channels channels(problem, static_cast<int>(block_in_grid() % parts));
  const DeltaChunk chunk = load(problem.chunks + block_in_grid() / parts);
  const int left = chunk.document_end - chunk.first, rows = chunk.count + later < left ? chunk.count + later : left;   // that read the chunk's tokens
  for (int row = thread_in_block() / kWarp; row < rows; row += kWarps) {
    float sums[kLane], x[kLane], dx[kLane];
    convolve<Element>(problem, channels, chunk.document_begin, chunk.first + row, sums);
    gradient_of<Element, kSize>(arguments, channels, chunk.first + row, dx);
    GRAFT_UNROLL
    for (int k = 0; k < kLane; ++k) x[k] = sums[k] * sigmoid(sums[k]);
    if (channels.normed()) {
      const float inverse = inverse_square_root(warp_product(x, x) + kDeltaNormEpsilon), along = warp_product(x, dx) * inverse * inverse;
      GRAFT_UNROLL
      for (int k = 0; k < kLane; ++k) dx[k] = channels.scale * inverse * (dx[k] - x[k] * along);
    }
    Pack<float, kLane> slopes;
    GRAFT_UNROLL
    for (int k = 0; k < kLane; ++k) {
      const float share = sigmoid(sums[k]);
      slopes.values[k] = dx[k] * share * (1 + sums[k] * (1 - share));
    }
    memory.slopes.write_pack(row * kMostDeltaSize + lane_channel(), slopes);
  }
  block_barrier();
  for (int row = thread_in_block() / kWarp; row < chunk.count; row += kWarps) {
    float dx[kLane] = {};
    for (int tap = 0; tap < problem.taps; ++tap) {
      const int reader = row + later - tap;
      if (reader >= rows) continue;
      const auto slopes = memory.slopes.template read_pack<kLane>(reader * kMostDeltaSize + lane_channel());
      GRAFT_UNROLL
      for (int k = 0; k < kLane; ++k) dx[k] += weight_of(problem, channels, k, tap) * slopes.values[k];
    }
    store_values(static_cast<Element*>(arguments.dqkv_NC) + (chunk.first + row) * row_of_qkv(problem) + channels.first, lane_channel(), channels.size, dx);
  }
}

int64_t blocks_for(const DeltaProblem& problem) { return int64_t(problem.num_chunks) * (2 * problem.num_key_heads + problem.num_value_heads); }

}  // namespace

void launch_rows(const DeltaProblem& problem, void* stream) {
  for_delta_sizes(problem, [&](auto sizes) {
    using Sizes = decltype(sizes);
    LAUNCH((delta_rows<typename Sizes::Type, Sizes::kValue>), blocks_for(problem), kThreads, 0, stream, problem);
  });
}

void launch_rows_backward(const DeltaAttentionBackward& arguments, void* stream) {
  for_delta_sizes(arguments.problem, [&](auto sizes) {
    using Sizes = decltype(sizes);
    LAUNCH((delta_rows_backward<typename Sizes::Type, Sizes::kValue>), blocks_for(arguments.problem), kThreads, sizeof(BackwardMemory), stream, arguments);
  });
}

}  // namespace graft::cuda
