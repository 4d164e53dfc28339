#include "kernels/linear_cross_entropy/linear_cross_entropy_device.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "kernels/device_launch/device_launch.h"
#include "kernels/linear_head/head_products.h"
#include "kernels/linear_head/logit_block.h"

namespace graft {

CrossEntropyResult linear_cross_entropy_device(const at::Tensor& hidden_MC, const HeadPieces& head, std::span<const int32_t> labels, std::span<const float> weights,
                                               const CrossEntropyOptions& options) {
  const at::NoGradGuard no_gradient;
  const int64_t num_rows = hidden_MC.size(0);
  const auto floats = hidden_MC.options().dtype(at::kFloat);
  const auto labels_M = tensor_of(labels, hidden_MC), scales_M = row_scales(weights, num_rows, options.gradient_scale, hidden_MC).to(at::kFloat);
  const auto losses_M = at::empty({num_rows}, floats), log_sums_M = at::empty_like(losses_M);
  const auto correct_M = at::empty({num_rows}, floats.dtype(at::kInt));
  CrossEntropyResult result;
  if (options.want_gradient) result.gradient_MC = at::empty_like(hidden_MC);
  LogitBlock block(hidden_MC, head.rows(), rows_of_block(num_rows, LogitBlock::row_bytes(head.rows()), options.buffer_bytes));
  for (int64_t first = 0; first < num_rows; first += block.most_rows()) {
    const int64_t count = std::min(block.most_rows(), num_rows - first);
    const auto hidden_BC = hidden_MC.narrow(0, first, count);
    head_product(hidden_BC, head, block.logits(count));
    launch_on(hidden_MC, "linear_cross_entropy",
              cuda::CrossEntropyRows{block.rows(head.softcap()), labels_M.const_data_ptr<int32_t>() + first, options.want_gradient ? scales_M.const_data_ptr<float>() + first : nullptr,
                                     losses_M.data_ptr<float>() + first, log_sums_M.data_ptr<float>() + first, correct_M.data_ptr<int32_t>() + first, count,
                                     static_cast<float>(options.z_loss), static_cast<float>(options.label_smoothing)});
    if (options.want_gradient) result.gradient_MC.narrow(0, first, count).copy_(head_product_backward(block.gradient(count), hidden_BC, head));
  }
  result.losses_M = values_of<float>(losses_M);
  result.log_sums_M = values_of<float>(log_sums_M);
  result.correct_M = values_of<uint8_t>(correct_M);
  result.weighted_loss = weighted_sum(losses_M, weights);
  return result;
}

}  // namespace graft
