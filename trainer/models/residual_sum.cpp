#include "trainer/models/residual_sum.h"

#include <ATen/ops/add.h>

#include "kernels/device_launch/device_launch.h"
#include "kernels/layer_norm/layer_norm.h"
#include "kernels/rms_norm/rms_norm.h"

namespace graft {

ResidualSum add_to_residual(const at::Tensor& x_NC, const at::Tensor& output_NC, const std::optional<Norm>& next_norm) {
  if (!next_norm || !takes_kernels(x_NC)) {
    const auto sum_NC = at::add(x_NC, output_NC);
    return {sum_NC, normed_input(next_norm, sum_NC)};
  }
  const NormOptions options{next_norm->spec.epsilon};
  const auto [sum_NC, y_NC] = next_norm->spec.kind == NormSpec::Kind::kRms
                                  ? add_and_rms_norm(x_NC, output_NC, next_norm->weight_C, options)
                                  : add_and_layer_norm(x_NC, output_NC, next_norm->weight_C, next_norm->bias_C, options);
  return {sum_NC, {y_NC, {}}};
}

}  // namespace graft
