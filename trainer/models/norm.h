// A norm with frozen weights, alone or fused into the linear layers that read it.
#pragma once
#include <optional>

#include <ATen/core/Tensor.h>

#include "kernels/lora_linear/lora_linear.h"
#include "trainer/models/decoder_spec.h"

namespace graft {

struct Norm {
  NormSpec spec;
  at::Tensor weight_C, bias_C;   // float32; no bias in an RMS norm

  at::Tensor apply(const at::Tensor& x_NC) const;
  void set_device(c10::Device device);
};

// What a block reads: prologue(x). An RMS norm rides in the first linear layers, so that its result is never stored.
struct BlockInput {
  at::Tensor x_NC;
  LinearPrologue prologue;
};

BlockInput normed_input(const std::optional<Norm>& norm, const at::Tensor& x_NC);
// prologue(x) itself, for a block that reads it otherwise than by linear layers alone.
at::Tensor materialised(const BlockInput& input);

}  // namespace graft
