// Ways to compute linear_kl, of arguments that it has checked; hidden is contiguous.
#pragma once
#include "kernels/linear_kl/linear_kl.h"

namespace graft {

// Tensors in the CPU's memory.
KlResult linear_kl_cpu(const at::Tensor& hidden_MC, const HeadPieces& head, const Teacher& teacher, std::span<const float> weights_M, const KlOptions& options);
// Where kernels run.
KlResult linear_kl_device(const at::Tensor& hidden_MC, const HeadPieces& head, const Teacher& teacher, std::span<const float> weights_M, const KlOptions& options);

// What a loss and a row's gradient by the logits over T are multiplied by.
inline double loss_factor(const KlOptions& options) { return options.times_temperature_squared ? options.temperature * options.temperature : 1; }
inline double gradient_factor(const KlOptions& options) { return options.gradient_scale * loss_factor(options) / options.temperature; }

}  // namespace graft
