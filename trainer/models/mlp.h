// Block: norm, down(silu(gate(x)) * up(x)).
#pragma once
#include "trainer/models/batch.h"
#include "trainer/models/linear.h"

namespace graft {

struct Mlp {
  double norm_epsilon = 0;
  at::Tensor norm_weight_C;   // float32
  Linear gate, up, down;

  at::Tensor forward(const at::Tensor& x_NC, const Batch& batch) const;
  void set_device(c10::Device device, at::ScalarType compute);
};

}  // namespace graft
