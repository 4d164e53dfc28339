#include "trainer/optimizers/adamw.h"

#include <cmath>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "kernels/common/operator_path.h"

namespace graft {
namespace {

double sum_of_squares(const at::Tensor& gradients) {
  double squares = 0;
  if (takes_fast_path(gradients)) {
    const float* g = gradients.const_data_ptr<float>();
    for (int64_t i = 0; i < gradients.numel(); ++i) squares += static_cast<double>(g[i]) * g[i];
    return squares;
  }
  constexpr int64_t kSlice = int64_t{1} << 24;   // 128 MiB as doubles
  for (int64_t first = 0; first < gradients.numel(); first += kSlice) {
    squares += gradients.narrow(0, first, std::min(kSlice, gradients.numel() - first)).to(at::kDouble).square_().sum().item<double>();
  }
  return squares;
}

}  // namespace

AdamW::AdamW(const OptimizerOptions& options, int64_t num_parameters, c10::Device device)
    : first_moment(at::zeros({num_parameters}, at::TensorOptions(at::kFloat).device(device))), second_moment(at::zeros_like(first_moment)), options_(options) {}

double AdamW::step(at::Tensor& parameters, const at::Tensor& exact_gradients, double learning_rate) {
  const auto gradients = exact_gradients.to(at::kFloat);
  const double norm = std::sqrt(sum_of_squares(gradients));
  if (!std::isfinite(norm)) return norm;
  ++num_steps;
  Factors factors;
  factors.clip = options_.clip > 0 ? static_cast<float>(std::min(1.0, options_.clip / (norm + 1e-6))) : 1.0f;
  factors.step_size = static_cast<float>(learning_rate / (1 - std::pow(options_.beta1, num_steps)));
  factors.correction = static_cast<float>(std::sqrt(1 - std::pow(options_.beta2, num_steps)));
  factors.keep = static_cast<float>(1 - learning_rate * options_.weight_decay);
  if (takes_fast_path(parameters)) update_on_cpu(parameters, gradients, factors);
  else update(parameters, gradients, factors);
  return norm;
}

void AdamW::update_on_cpu(at::Tensor& parameters, const at::Tensor& gradients, const Factors& factors) {
  const auto beta1 = static_cast<float>(options_.beta1), beta2 = static_cast<float>(options_.beta2), epsilon = static_cast<float>(options_.epsilon);
  const auto [clip, step_size, correction, keep] = factors;
  const float* g = gradients.const_data_ptr<float>();
  float *p = parameters.data_ptr<float>(), *m = first_moment.data_ptr<float>(), *v = second_moment.data_ptr<float>();
  at::parallel_for(0, parameters.numel(), 65536, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float gradient = g[i] * clip;
      m[i] += (1 - beta1) * (gradient - m[i]);
      v[i] = beta2 * v[i] + (1 - beta2) * gradient * gradient;
      p[i] = p[i] * keep - step_size * m[i] / (std::sqrt(v[i]) / correction + epsilon);
    }
  });
}

void AdamW::update(at::Tensor& parameters, const at::Tensor& gradients, const Factors& factors) {
  const auto beta1 = static_cast<float>(options_.beta1), beta2 = static_cast<float>(options_.beta2), epsilon = static_cast<float>(options_.epsilon);
  const auto gradient = gradients * factors.clip;
  first_moment.add_(gradient - first_moment, 1 - beta1);
  second_moment.mul_(beta2).addcmul_(gradient, gradient, 1 - beta2);
  parameters.mul_(factors.keep).addcdiv_(first_moment, second_moment.sqrt().div_(factors.correction).add_(epsilon), -factors.step_size);
}

}  // namespace graft
