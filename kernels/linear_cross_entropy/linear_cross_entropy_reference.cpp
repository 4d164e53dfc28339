// The specification in plain ATen.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "kernels/elementwise/typed_rows.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/linear_head/head_products.h"

namespace graft {

CrossEntropyResult linear_cross_entropy_reference(const at::Tensor& hidden_MC, const LinearHead& head, std::span<const int32_t> labels,
                                                  std::span<const float> weights, const CrossEntropyOptions& options) {
  return linear_cross_entropy_reference(hidden_MC, WholeHead(head), labels, weights, options);
}

CrossEntropyResult linear_cross_entropy_reference(const at::Tensor& hidden_MC, const HeadPieces& head, std::span<const int32_t> labels,
                                                  std::span<const float> weights, const CrossEntropyOptions& options) {
  const at::NoGradGuard no_gradient;
  const int64_t num_rows = hidden_MC.size(0), vocab = head.rows();
  const double smoothing = options.label_smoothing;
  const auto wide = wide_type(hidden_MC.scalar_type());
  const auto labels_M1 = tensor_of(labels, hidden_MC).to(at::kLong).unsqueeze(1);
  const auto scales_M1 = row_scales(weights, num_rows, options.gradient_scale, hidden_MC).to(wide).unsqueeze(1);
  auto losses_M = at::empty({num_rows}, hidden_MC.options().dtype(wide)), log_sums_M = at::empty_like(losses_M);
  auto correct_M = at::empty({num_rows}, hidden_MC.options().dtype(at::kByte));
  CrossEntropyResult result;
  if (options.want_gradient) result.gradient_MC = at::empty_like(hidden_MC);
  const int64_t block = rows_of_block(num_rows, vocab * static_cast<int64_t>(c10::elementSize(wide)), options.buffer_bytes);
  for (int64_t first = 0; first < num_rows; first += block) {
    const int64_t count = std::min(block, num_rows - first);
    const auto rows_of = [&](const at::Tensor& x) { return x.narrow(0, first, count); };
    auto logits_BV = at::empty({count, vocab}, losses_M.options());
    head_product(rows_of(hidden_MC), head, logits_BV);
    at::Tensor slope_BV;   // of the softcap
    if (head.softcap() > 0) {
      logits_BV.div_(head.softcap()).tanh_();
      if (options.want_gradient) slope_BV = 1 - logits_BV.square();
      logits_BV.mul_(head.softcap());
    }
    const auto maximum_B1 = logits_BV.amax(-1, true), at_label_B1 = logits_BV.gather(1, rows_of(labels_M1));
    auto target_B1 = at_label_B1;   // the mean logit by the smoothed label's distribution
    if (smoothing > 0) target_B1 = at_label_B1 * (1 - smoothing) + logits_BV.mean(-1, true) * smoothing;
    logits_BV.sub_(maximum_B1).exp_();   // softmax and gradient overwrite the logits
    const auto sum_B1 = logits_BV.sum(-1, true), log_sum_B1 = maximum_B1 + sum_B1.log();
    rows_of(losses_M).copy_((log_sum_B1 - target_B1 + options.z_loss * log_sum_B1.square()).squeeze(1));
    rows_of(log_sums_M).copy_(log_sum_B1.squeeze(1));
    rows_of(correct_M).copy_(at::ge(at_label_B1, maximum_B1).squeeze(1));
    if (!options.want_gradient) continue;
    const auto scale_B1 = rows_of(scales_M1);
    logits_BV.mul_(scale_B1 * (1 + 2 * options.z_loss * log_sum_B1) / sum_B1);
    if (smoothing > 0) logits_BV.sub_(scale_B1 * (smoothing / static_cast<double>(vocab)));
    logits_BV.scatter_(1, rows_of(labels_M1), logits_BV.gather(1, rows_of(labels_M1)) - scale_B1 * (1 - smoothing));
    if (slope_BV.defined()) logits_BV.mul_(slope_BV);
    rows_of(result.gradient_MC).copy_(head_product_backward(logits_BV, rows_of(hidden_MC), head));
  }
  result.losses_M = values_of<float>(losses_M);
  result.log_sums_M = values_of<float>(log_sums_M);
  result.correct_M = values_of<uint8_t>(correct_M);
  result.weighted_loss = weighted_sum(losses_M, weights);
  return result;
}

}  // namespace graft
