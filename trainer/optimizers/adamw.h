// AdamW over one flat float32 buffer, with clipping of the global gradient norm (Loshchilov and Hutter 2019, arXiv 1711.05101; the arithmetic of
// torch.optim.AdamW):
//   g <- g * min(1, clip / (|g| + 1e-6));  m <- b1 m + (1-b1) g;  v <- b2 v + (1-b2) g^2
//   p <- p * (1 - lr * decay) - lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + epsilon)
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
  struct Factors {   // of one step
    float clip, step_size, correction, keep;
  };
  void update_on_cpu(at::Tensor& parameters, const at::Tensor& gradients, const Factors& factors);
  void update(at::Tensor& parameters, const at::Tensor& gradients, const Factors& factors);   // the same in ATen operations

  OptimizerOptions options_;
};

}  // namespace graft
