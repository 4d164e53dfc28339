// Block: norm, query/key/value, rotary attention, output projection. The residual add is the layer's.
#pragma once
#include "trainer/models/batch.h"
#include "trainer/models/decoder_spec.h"
#include "trainer/models/linear.h"
#include "trainer/models/rope_tables.h"

namespace graft {

struct SoftmaxAttention {
  AttentionSpec spec;
  double norm_epsilon = 0;
  at::Tensor norm_weight_C, query_norm_D, key_norm_D;   // float32
  Linear query, key, value, output;

  // x [N, C] -> [N, C]. caches: one per document, or empty.
  at::Tensor forward(const at::Tensor& x_NC, const RopeTable& rope, const Batch& batch, std::span<KeyValueCache* const> caches) const;
  void set_device(c10::Device device, at::ScalarType compute);
};

// The dropout of a linear's adapter in this batch.
LoraDropout dropout_of(const Linear& linear, const Batch& batch);

}  // namespace graft
