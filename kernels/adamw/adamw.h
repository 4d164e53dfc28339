// One step of AdamW over flat float32 buffers, with clipping of the global gradient norm (Loshchilov and Hutter 2019, arXiv 1711.05101; the arithmetic of
// torch.optim.AdamW), in place. t is the step's number, from 1:
//   g <- g * min(1, clip / (|g| + 1e-6));  m <- b1 m + (1-b1) g;  v <- b2 v + (1-b2) g^2
//   p <- p * (1 - lr * decay) - lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + epsilon)
#pragma once
#include <cstdint>

#include <ATen/core/Tensor.h>

namespace graft {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
  double clip = 0;   // 0: none
};

// p, m, v and g: [P] float32, contiguous, on one device. Returns |g| before clipping, a sum in double; where it is NaN or infinite nothing was updated.
double adamw(const at::Tensor& parameters, const at::Tensor& first_moment, const at::Tensor& second_moment, const at::Tensor& gradients,
             const AdamWOptions& options, double learning_rate, int64_t step);

}  // namespace graft
