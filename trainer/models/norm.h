// A norm with frozen weights, alone or fused into the linear layers that read it.
#pragma once
#include <optional>

#include <ATen/core/Tensor.h>

#include "kernels/lora_linear/lora_linear.h"
#include "kernels/norm_rows/norm_by_kernels.h"
#include "trainer/models/decoder_spec.h"

namespace graft {

struct Norm {
  NormSpec spec;
  at::Tensor weight_C, bias_C;   // float32; no bias in an RMS norm

  at::Tensor apply(const at::Tensor& x_NC) const;
  // x + further, and its norm.
  NormedSum apply_to_sum(const at::Tensor& x_NC, const at::Tensor& further_NC) const;
  void set_device(c10::Device device);
};

// What a block reads: prologue(x). An RMS norm rides in the first linear layers, so that its result is never stored.
struct BlockInput {
  at::Tensor x_NC;
  LinearPrologue prologue;
};

BlockInput normed_input(const std::optional<Norm>& norm, const at::Tensor& x_NC);
// The residual stream after `output`, and what the next block reads of it. Where kernels run these are one pass over memory, and the norm's result is stored.
struct ResidualSum {
  at::Tensor x_NC;
  BlockInput next;
};
ResidualSum add_to_residual(const at::Tensor& x_NC, const at::Tensor& output_NC, const std::optional<Norm>& next_norm);
// prologue(x) itself, for a block that reads it otherwise than by linear layers alone.
at::Tensor materialised(const BlockInput& input);

}  // namespace graft
