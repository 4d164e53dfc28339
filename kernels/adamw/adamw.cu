// Two kernels, and no wait of the program between them: sums of squares of each block, in double; then every block adds these up in one order, so that all
// have the same norm and factor, and updates its part. Bound by memory: 32 bytes an element.
#include "kernels/adamw/adamw.cuh"

#include "kernels/cuda/reduce.cuh"

namespace graft::cuda {
namespace {

constexpr int kThreads = 256;
using Four = Pack<float, 4>;
using SumMemory = BlockSumMemory<kThreads, double>;

// This thread's share of a buffer: of_pack(number of a pack of four), and of_element(index) of those behind the last pack.
template <typename OfPack, typename OfElement>
GRAFT_DEVICE void for_each_part(int64_t size, int64_t blocks, const OfPack& of_pack, const OfElement& of_element) {
  const int64_t packs = size / 4, stride = blocks * kThreads;
  for (int64_t pack = block_in_grid() * kThreads + thread_in_block(); pack < packs; pack += stride) of_pack(pack);
  if (block_in_grid() == 0 && thread_in_block() < size % 4) of_element(packs * 4 + thread_in_block());
}

GRAFT_DEVICE double square(float value) { return static_cast<double>(value) * static_cast<double>(value); }

GRAFT_KERNEL(kThreads) adamw_squares(const AdamWUpdate step, const int64_t blocks) {
  auto& memory = GRAFT_SHARED(SumMemory);
  double sum = 0;
  for_each_part(
      step.size, blocks,
      [&](int64_t pack) {
        const Four g = load(reinterpret_cast<const Four*>(step.gradients) + pack);
        sum += (square(g.values[0]) + square(g.values[1])) + (square(g.values[2]) + square(g.values[3]));
      },
      [&](int64_t i) { sum += square(load(step.gradients + i)); });
  sum = block_sum<kThreads>(sum, memory);
  if (thread_in_block() == 0) store(step.partial_sums + block_in_grid(), sum);
}

GRAFT_DEVICE void update_one(const AdamWUpdate& step, float clip, float exact_gradient, float& parameter, float& first, float& second) {
  const float gradient = exact_gradient * clip;
  first += (1 - step.beta1) * (gradient - first);
  second = step.beta2 * second + (1 - step.beta2) * gradient * gradient;
  parameter = parameter * step.keep - step.step_size * first / (square_root(second) / step.correction + step.epsilon);
}

GRAFT_KERNEL(kThreads) adamw_update(const AdamWUpdate step, const int64_t blocks) {
  auto& memory = GRAFT_SHARED(SumMemory);
  double sum = 0;
  for (int64_t i = thread_in_block(); i < blocks; i += kThreads) sum += load(step.partial_sums + i);
  const double norm = square_root(block_sum<kThreads>(sum, memory));
  if (block_in_grid() == 0 && thread_in_block() == 0) store(step.norm, norm);
  if (!(norm < infinity())) return;   // NaN too
  const double factor = step.clip / (norm + 1e-6);
  const float clip = step.clip > 0 && factor < 1 ? static_cast<float>(factor) : 1.0F;
  for_each_part(
      step.size, blocks,
      [&](int64_t pack) {
        const Four g = load(reinterpret_cast<const Four*>(step.gradients) + pack);
        auto *p = reinterpret_cast<Four*>(step.parameters) + pack, *m = reinterpret_cast<Four*>(step.first_moment) + pack,
             *v = reinterpret_cast<Four*>(step.second_moment) + pack;
        Four parameters = load(p), first = load(m), second = load(v);
        GRAFT_UNROLL
        for (int k = 0; k < 4; ++k) update_one(step, clip, g.values[k], parameters.values[k], first.values[k], second.values[k]);
        store(p, parameters);
        store(m, first);
        store(v, second);
      },
      [&](int64_t i) {
        float parameter = load(step.parameters + i), first = load(step.first_moment + i), second = load(step.second_moment + i);
        update_one(step, clip, load(step.gradients + i), parameter, first, second);
        store(step.parameters + i, parameter);
        store(step.first_moment + i, first);
        store(step.second_moment + i, second);
      });
}

}  // namespace

const char* launch(const AdamWUpdate& arguments, void* stream) {
  const int64_t blocks = adamw_blocks(arguments.size);
  LAUNCH(adamw_squares, blocks, kThreads, sizeof(SumMemory), stream, arguments, blocks);
  if (const char* problem = launch_error()) return problem;
  LAUNCH(adamw_update, blocks, kThreads, sizeof(SumMemory), stream, arguments, blocks);
  return launch_error();
}

}  // namespace graft::cuda
