#include "trainer/optimizers/adamw.h"

#include <cmath>

#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "kernels/adamw/adamw.h"

namespace graft {

AdamW::AdamW(const OptimizerOptions& options, int64_t num_parameters, c10::Device device)
    : first_moment(at::zeros({num_parameters}, at::TensorOptions(at::kFloat).device(device))), second_moment(at::zeros_like(first_moment)), options_(options) {}

double AdamW::step(at::Tensor& parameters, const at::Tensor& gradients, double learning_rate) {
  const AdamWOptions options{options_.beta1, options_.beta2, options_.epsilon, options_.weight_decay, options_.clip};
  const double norm = adamw(parameters, first_moment, second_moment, gradients.to(at::kFloat), options, learning_rate, num_steps + 1);
  if (std::isfinite(norm)) ++num_steps;
  return norm;
}

}  // namespace graft
