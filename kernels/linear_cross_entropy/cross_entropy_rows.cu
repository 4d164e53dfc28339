// Reads a row once for its sum of exponentials; the second time, from cache or not, its gradient overwrites it.
#include "kernels/linear_cross_entropy/cross_entropy_rows.cuh"

#include "kernels/linear_head/logit_values.cuh"

namespace graft::cuda {
namespace {

struct CrossEntropyMemory {
  ExponentialSumMemory<kLogitThreads> exponentials;
  BlockSumMemory<kLogitThreads> logits;
};

template <typename Logit, typename Gradient>
GRAFT_KERNEL(kLogitThreads) cross_entropy_rows(const CrossEntropyRows arguments) {
  constexpr int kPack = kWidestPack<Logit>;
  auto& memory = GRAFT_SHARED(CrossEntropyMemory);
  const int64_t row = block_in_grid();
  const int width = arguments.logits.width;
  const SoftCap cap(arguments.logits.softcap);
  const float smoothing = arguments.label_smoothing;
  auto* logits = row_of<Logit>(arguments.logits, row);
  const int label = load(arguments.labels_B + row);
  const float at_label = cap(to_float(load(logits + label)));

  ExponentialSum exponentials;
  float sum_of_logits = 0;
  for_values(logits, width, -infinity(), [&](int first, float(&values)[kPack]) {
    GRAFT_UNROLL
    for (int k = 0; k < kPack; ++k) {
      values[k] = cap(values[k]);
      if (first + k < width) sum_of_logits += values[k];
    }
    exponentials.add(values);
  });
  exponentials = block_sum(exponentials, memory.exponentials);
  const float log_sum = exponentials.log();
  float target = at_label;   // the mean logit by the smoothed label's distribution
  if (smoothing > 0) target = at_label * (1 - smoothing) + block_sum(sum_of_logits, memory.logits) / static_cast<float>(width) * smoothing;
  if (thread_in_block() == 0) {
    store(arguments.losses_B + row, log_sum - target + arguments.z_loss * log_sum * log_sum);
    store(arguments.log_sums_B + row, log_sum);
    store(arguments.correct_B + row, static_cast<int32_t>(at_label >= exponentials.largest));
  }
  if (!arguments.scales_B) return;

  const float scale = load(arguments.scales_B + row);
  const float factor = scale * (1 + 2 * arguments.z_loss * log_sum) / exponentials.sum;
  const float everywhere = scale * smoothing / static_cast<float>(width), at_the_label = scale * (1 - smoothing);
  replace_values<Gradient>(logits, width, [&](int first, float(&values)[kPack]) {
    GRAFT_UNROLL
    for (int k = 0; k < kPack; ++k) {
      const float capped = cap(values[k]);
      const float gradient = exponential(capped - exponentials.largest) * factor - everywhere;
      values[k] = (first + k == label ? gradient - at_the_label : gradient) * cap.slope(capped);
    }
  });
}

}  // namespace

const char* launch(const CrossEntropyRows& arguments, void* stream) {
  if (const char* problem = problem_of(arguments.logits)) return problem;
  if (arguments.num_rows == 0) return nullptr;
  visit_types(arguments.logits.type, [&](auto types) {
    using Types = decltype(types);
    LAUNCH((cross_entropy_rows<typename Types::Logit, typename Types::Gradient>), arguments.num_rows, kLogitThreads, sizeof(CrossEntropyMemory), stream, arguments);
  });
  return launch_error();
}

}  // namespace graft::cuda
