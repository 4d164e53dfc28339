#include "kernels/adamw/adamw.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/ranges.h>

#include "kernels/adamw/adamw.cuh"
#include "kernels/device_launch/device_launch.h"

namespace graft {
namespace {

using at::Tensor;

// Of one step.
struct Factors {
  float beta1, beta2, epsilon, step_size, correction, keep;
};

double sum_of_squares(const Tensor& gradients) {
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

void update_on_cpu(const Tensor& parameters, const Tensor& first_moment, const Tensor& second_moment, const Tensor& gradients, const Factors& factors,
                   float clip) {
  const auto [beta1, beta2, epsilon, step_size, correction, keep] = factors;
  const float* g = gradients.const_data_ptr<float>();
  float *p = parameters.data_ptr<float>(), *m = first_moment.data_ptr<float>(), *v = second_moment.data_ptr<float>();
  at::parallel_for(
      0, parameters.numel(), 65536,
      [=, beta1 = beta1, beta2 = beta2, epsilon = epsilon, step_size = step_size, correction = correction, keep = keep](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const float gradient = g[i] * clip;
          m[i] += (1 - beta1) * (gradient - m[i]);
          v[i] = beta2 * v[i] + (1 - beta2) * gradient * gradient;
          p[i] = p[i] * keep - step_size * m[i] / (std::sqrt(v[i]) / correction + epsilon);
        }
      });
}

// The same in ATen operations.
void update(const Tensor& parameters, const Tensor& first_moment, const Tensor& second_moment, const Tensor& gradients, const Factors& factors, float clip) {
  const auto gradient = gradients * clip;
  first_moment.add_(gradient - first_moment, 1 - factors.beta1);
  second_moment.mul_(factors.beta2).addcmul_(gradient, gradient, 1 - factors.beta2);
  parameters.mul_(factors.keep).addcdiv_(first_moment, second_moment.sqrt().div_(factors.correction).add_(factors.epsilon), -factors.step_size);
}

double by_kernels(const Tensor& parameters, const Tensor& first_moment, const Tensor& second_moment, const Tensor& given_gradients, const Factors& factors,
                  double clip) {
  const auto gradients = for_kernels(given_gradients);
  const int64_t size = gradients.numel();
  // The norm, then what the blocks add up.
  const auto sums = at::empty({1 + cuda::adamw_blocks(size)}, gradients.options().dtype(at::kDouble));
  auto* norm = sums.data_ptr<double>();
  launch_on(gradients, "adamw",
            cuda::AdamWUpdate{gradients.const_data_ptr<float>(), parameters.data_ptr<float>(), first_moment.data_ptr<float>(), second_moment.data_ptr<float>(),
                              size, norm + 1, norm, clip, factors.beta1, factors.beta2, factors.epsilon, factors.step_size, factors.correction, factors.keep});
  return sums[0].item<double>();   // the step's only wait for the GPU
}

}  // namespace

double adamw(const Tensor& parameters, const Tensor& first_moment, const Tensor& second_moment, const Tensor& gradients, const AdamWOptions& options,
             double learning_rate, int64_t step) {
  const bool kernels = takes_kernels(parameters);
  const auto check = [&](const char* what, const Tensor& buffer, bool updated) {
    if (buffer.dim() != 1 || buffer.numel() != parameters.numel() || buffer.scalar_type() != at::kFloat || !buffer.is_contiguous() ||
        buffer.device() != parameters.device()) {
      fail("kernels", "adamw: expected {} as [{}] float32, contiguous, on {}, got {} of sizes [{}] and strides [{}] on {}", what, parameters.numel(),
           parameters.device().str(), c10::toString(buffer.scalar_type()), fmt::join(buffer.sizes(), ", "), fmt::join(buffer.strides(), ", "),
           buffer.device().str());
    }
    if (kernels && updated && reinterpret_cast<uintptr_t>(buffer.const_data_ptr()) % 16 != 0) {
      fail("kernels", "adamw: expected {} at a multiple of 16 bytes in memory, got a view that begins elsewhere", what);
    }
  };
  check("parameters", parameters, true);
  check("first moment", first_moment, true);
  check("second moment", second_moment, true);
  check("gradients", gradients, false);
  if (step < 1) fail("kernels", "adamw: expected a step's number from 1, got {}", step);
  const auto number = static_cast<double>(step);
  const Factors factors{static_cast<float>(options.beta1),
                        static_cast<float>(options.beta2),
                        static_cast<float>(options.epsilon),
                        static_cast<float>(learning_rate / (1 - std::pow(options.beta1, number))),
                        static_cast<float>(std::sqrt(1 - std::pow(options.beta2, number))),
                        static_cast<float>(1 - learning_rate * options.weight_decay)};
  if (kernels) return by_kernels(parameters, first_moment, second_moment, gradients, factors, options.clip);
  const double norm = std::sqrt(sum_of_squares(gradients));
  if (!std::isfinite(norm)) return norm;
  const float clip = options.clip > 0 ? static_cast<float>(std::min(1.0, options.clip / (norm + 1e-6))) : 1.0f;
  (takes_fast_path(parameters) ? update_on_cpu : update)(parameters, first_moment, second_moment, gradients, factors, clip);
  return norm;
}

}  // namespace graft
