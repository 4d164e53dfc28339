// What the experts of a token made of it becomes one row, and the gradient of the weights by which that was done. Bound by memory.
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/experts/experts.cuh"

namespace graft::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t blocks_for(int64_t threads) { return (threads + kThreads - 1) / kThreads; }

// A thread has one pack of y.
template <typename Element, int kPack>
GRAFT_KERNEL(kThreads) expert_combine(const ExpertCombine arguments) {
  using Packed = Pack<Element, kPack>;
  const auto& rows = arguments.rows;
  const int64_t packs = arguments.columns / kPack, index = block_in_grid() * kThreads + thread_in_block();
  if (index >= rows.num_tokens * packs) return;
  const int64_t token = index / packs, pack = index % packs;
  float sums[kPack] = {};
  for (int64_t choice = token * rows.choices; choice < (token + 1) * rows.choices; ++choice) {
    const int64_t row = load(rows.place_NK + choice);
    if (row < 0) continue;
    const float weight = arguments.weights_NK ? load(arguments.weights_NK + choice) : 1.0F;
    const Packed values = load(static_cast<const Packed*>(arguments.rows_MC) + row * packs + pack);
    GRAFT_UNROLL
    for (int i = 0; i < kPack; ++i) sums[i] += weight * to_float(values.values[i]);
  }
  Packed y;
  GRAFT_UNROLL
  for (int i = 0; i < kPack; ++i) y.values[i] = from_float<Element>(sums[i]);
  store(static_cast<Packed*>(arguments.y_NC) + index, y);
}

// A warp has a choice.
template <typename Element>
GRAFT_KERNEL(kThreads) expert_weights_backward(const ExpertWeightsBackward arguments) {
  const auto& rows = arguments.rows;
  const int lane = thread_in_block() % kWarp;
  const int64_t choices = rows.num_tokens * rows.choices, choice = block_in_grid() * (kThreads / kWarp) + thread_in_block() / kWarp;
  if (choice >= choices) return;
  const int64_t row = load(rows.place_NK + choice);
  float sum = 0;
  if (row >= 0) {
    for (int partial = lane; partial < arguments.num_partials; partial += kWarp) sum += load(arguments.weight_partials + partial * choices + row);
    if (arguments.bias_EC) {
      const float* bias = arguments.bias_EC + load(rows.chosen_NK + choice) * arguments.columns;
      const auto* dy = static_cast<const Element*>(arguments.dy_NC) + choice / rows.choices * arguments.columns;
      for (int64_t column = lane; column < arguments.columns; column += kWarp) sum += load(bias + column) * to_float(load(dy + column));
    }
  }
  sum = warp_sum(sum);
  if (lane == 0) store(arguments.dweights_NK + choice, sum);
}

}  // namespace

const char* launch(const ExpertCombine& arguments, void* stream) {
  if (arguments.rows.num_tokens == 0 || arguments.columns == 0) return nullptr;
  for_row_type(arguments.type, [&](auto element) {
    using Element = decltype(element);
    constexpr int kWide = kWidestPack<Element>;
    const int64_t elements = arguments.rows.num_tokens * arguments.columns;
    if (arguments.columns % kWide == 0) {
      LAUNCH((expert_combine<Element, kWide>), blocks_for(elements / kWide), kThreads, 0, stream, arguments);
    } else {
      LAUNCH((expert_combine<Element, 1>), blocks_for(elements), kThreads, 0, stream, arguments);
    }
  });
  return launch_error();
}

const char* launch(const ExpertWeightsBackward& arguments, void* stream) {
  const int64_t choices = arguments.rows.num_tokens * arguments.rows.choices;
  if (choices == 0) return nullptr;
  for_row_type(arguments.type, [&](auto element) {
    LAUNCH(expert_weights_backward<decltype(element)>, blocks_for(choices * kWarp), kThreads, 0, stream, arguments);
  });
  return launch_error();
}

}  // namespace graft::cuda
