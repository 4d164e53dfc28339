// The residual stream of a layer between its two blocks.
#pragma once
#include "trainer/models/norm.h"

namespace graft {

struct ResidualSum {
  at::Tensor x_NC;
  BlockInput next;   // what the next block reads of it
};

// x + a block's output. Where kernels run, the norm that follows is computed in the same pass over memory, and its result is stored.
ResidualSum add_to_residual(const at::Tensor& x_NC, const at::Tensor& output_NC, const std::optional<Norm>& next_norm);

}  // namespace graft
