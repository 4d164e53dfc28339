// AdamW (kernels/adamw/adamw.h) and its state over one flat float32 buffer of parameters.
#pragma once
#include <cstdint>

#include <ATen/core/Tensor.h>

#include "trainer/recipe/recipe.h"

namespace graft {

class AdamW {
 public:
  AdamW(const OptimizerOptions& options, int64_t num_parameters, c10::Device device = c10::kCPU);   // where parameters and gradients are
  // Updates the parameters from the gradients (float64 is rounded to float32 first); returns the gradient norm before clipping (double sum). NaN or infinity: nothing is updated.
  double step(at::Tensor& parameters, const at::Tensor& gradients, double learning_rate);

  int64_t num_steps = 0;
  at::Tensor first_moment, second_moment;   // flat float32

 private:
  OptimizerOptions options_;
};

}  // namespace graft
