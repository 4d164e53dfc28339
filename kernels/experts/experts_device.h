// experts on a GPU, by kernels (experts.cuh). Everything that depends on the routing stays on the device. Kept for backward: the inputs, h, both banks'
// low-rank rows, and the lists of rows. Operands of 16 bits are rounded as in the reference.
#pragma once
#include "kernels/experts/experts.h"

namespace graft {

// Not for float64, more than 1,024 experts, unequal or more than two parts.
bool experts_have_kernels(const at::Tensor& x_NC, const at::Tensor& chosen_NK, const ExpertBank& gate_up, const ExpertBank& down);

at::Tensor experts_by_kernels(const at::Tensor& x_NC, const at::Tensor& chosen_NK, const at::Tensor& weights_NK, const ExpertBank& gate_up,
                              const ExpertBank& down, const ExpertActivation& activation);

}  // namespace graft
