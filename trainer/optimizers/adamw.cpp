#include "trainer/optimizers/adamw.h"

#include <cmath>

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

namespace graft {

AdamW::AdamW(const OptimizerOptions& options, int64_t num_parameters)
    : first_moment(at::zeros({num_parameters}, at::kFloat)), second_moment(at::zeros({num_parameters}, at::kFloat)), options_(options) {}

double AdamW::step(at::Tensor& parameters, const at::Tensor& gradients, double learning_rate) {
  const int64_t size = parameters.numel();
  const float* g = gradients.const_data_ptr<float>();
  double squares = 0;
  for (int64_t i = 0; i < size; ++i) squares += static_cast<double>(g[i]) * g[i];
  const double norm = std::sqrt(squares);
  if (!std::isfinite(norm)) return norm;
  ++num_steps;
  const float factor = options_.clip > 0 ? static_cast<float>(std::min(1.0, options_.clip / (norm + 1e-6))) : 1.0f;
  const auto beta1 = static_cast<float>(options_.beta1), beta2 = static_cast<float>(options_.beta2);
  const auto step_size = static_cast<float>(learning_rate / (1 - std::pow(options_.beta1, num_steps)));
  const auto correction = static_cast<float>(std::sqrt(1 - std::pow(options_.beta2, num_steps)));
  const auto keep = static_cast<float>(1 - learning_rate * options_.weight_decay), epsilon = static_cast<float>(options_.epsilon);
  float *p = parameters.data_ptr<float>(), *m = first_moment.data_ptr<float>(), *v = second_moment.data_ptr<float>();
  at::parallel_for(0, size, 65536, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float gradient = g[i] * factor;
      m[i] += (1 - beta1) * (gradient - m[i]);
      v[i] = beta2 * v[i] + (1 - beta2) * gradient * gradient;
      p[i] = p[i] * keep - step_size * m[i] / (std::sqrt(v[i]) / correction + epsilon);
    }
  });
  return norm;
}

}  // namespace graft
