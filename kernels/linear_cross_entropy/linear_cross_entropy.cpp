#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

#include <cmath>

#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>

#include "kernels/device_launch/device_launch.h"
#include "kernels/elementwise/rows_cpu.h"
#include "kernels/frozen_product/frozen_product.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy_device.h"
#include "kernels/linear_head/head_products.h"
#include "kernels/linear_head/head_products_cpu.h"
#include "kernels/scratch/scratch.h"

namespace graft {
namespace {

void check(const at::Tensor& hidden_MC, const HeadPieces& head, std::span<const int32_t> labels, std::span<const float> weights, const CrossEntropyOptions& options) {
  check_head_rows("linear_cross_entropy", "hidden", hidden_MC, head);
  const int64_t num_rows = hidden_MC.size(0), vocab = head.rows();
  if (static_cast<int64_t>(labels.size()) != num_rows || (!weights.empty() && weights.size() != labels.size())) {
    fail("kernels", "linear_cross_entropy: expected hidden [{}, {}] with one label and weight a row, got {} labels, {} weights", num_rows, head.columns(), labels.size(),
         weights.size());
  }
  for (const auto label : labels) {
    if (label < 0 || label >= vocab) fail("kernels", "linear_cross_entropy: expected labels from 0 to {}, got {}", vocab - 1, label);
  }
  if (!(options.z_loss >= 0) || !(options.label_smoothing >= 0 && options.label_smoothing <= 1)) {
    fail("kernels", "linear_cross_entropy: expected a z-loss of at least 0 and label smoothing from 0 to 1, got {} and {}", options.z_loss, options.label_smoothing);
  }
}

}  // namespace

int64_t cross_entropy_blocks(int64_t num_rows, int64_t vocab_size, int64_t buffer_bytes) {
  const int64_t block = rows_of_block(num_rows, scratch_row_stride(vocab_size) * 4, buffer_bytes);
  return (num_rows + block - 1) / block;
}

CrossEntropyResult linear_cross_entropy(const at::Tensor& hidden_MC, const LinearHead& head, std::span<const int32_t> labels_M,
                                        std::span<const float> weights_M, const CrossEntropyOptions& options) {
  return linear_cross_entropy(hidden_MC, WholeHead(head), labels_M, weights_M, options);
}

CrossEntropyResult linear_cross_entropy(const at::Tensor& given_MC, const HeadPieces& head, std::span<const int32_t> labels_M,
                                        std::span<const float> weights_M, const CrossEntropyOptions& options) {
  check(given_MC, head, labels_M, weights_M, options);
  const auto hidden_MC = given_MC.contiguous();
  if (takes_kernels(hidden_MC)) return linear_cross_entropy_device(hidden_MC, head, labels_M, weights_M, options);
  if (!takes_fast_path(hidden_MC)) return linear_cross_entropy_reference(hidden_MC, head, labels_M, weights_M, options);
  const int64_t num_rows = hidden_MC.size(0), vocab = head.rows();
  CrossEntropyResult result;
  result.losses_M.resize(num_rows);
  result.log_sums_M.resize(num_rows);
  result.correct_M.resize(num_rows);
  if (options.want_gradient) result.gradient_MC = at::empty_like(hidden_MC);
  const int64_t stride = scratch_row_stride(vocab);
  const int64_t block = rows_of_block(num_rows, stride * 4, options.buffer_bytes);
  const auto smoothing = static_cast<float>(options.label_smoothing), z_loss = static_cast<float>(options.z_loss);
  Scratch scratch;
  float* logits = scratch.floats(std::min(block, num_rows) * stride);
  for (int64_t first = 0; first < num_rows; first += block) {
    const int64_t count = std::min(block, num_rows - first);
    head_cpu::logits(hidden_MC, first, count, head, logits, stride);
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> capped(head.softcap() > 0 && options.want_gradient ? vocab : 0);
      for (int64_t b = begin; b < end; ++b) {
        float* row = logits + b * stride;
        const int32_t label = labels_M[first + b];
        const float maximum = rows::maximum(row, vocab), at_label = row[label];
        float target = at_label;   // the mean logit by the smoothed label's distribution
        if (smoothing > 0) target = at_label * (1 - smoothing) + rows::sum(row, vocab) / static_cast<float>(vocab) * smoothing;
        std::copy_n(row, capped.size(), capped.data());
        const float sum = rows::exp_and_sum(row, vocab, 1, maximum), log_sum = maximum + std::log(sum);
        result.losses_M[first + b] = log_sum - target + z_loss * log_sum * log_sum;
        result.log_sums_M[first + b] = log_sum;
        result.correct_M[first + b] = at_label >= maximum;
        if (!options.want_gradient) continue;
        const float weight = (weights_M.empty() ? 1.0f : weights_M[first + b]) * static_cast<float>(options.gradient_scale);
        rows::scale(row, vocab, weight * (1 + 2 * z_loss * log_sum) / sum);
        if (smoothing > 0) rows::add_constant(row, vocab, -weight * smoothing / static_cast<float>(vocab));
        row[label] -= weight * (1 - smoothing);
        head_cpu::finish_gradient(hidden_MC, head, capped.data(), row);
      }
    });
    if (options.want_gradient) head_cpu::hidden_gradient(logits, stride, first, count, head, result.gradient_MC);
  }
  for (int64_t i = 0; i < num_rows; ++i) {
    result.weighted_loss += static_cast<double>(result.losses_M[i]) * (weights_M.empty() ? 1.0 : weights_M[i]);
  }
  return result;
}

}  // namespace graft
