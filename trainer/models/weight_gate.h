// Brings frozen weights to where the next operators read them, for a base that does not lie whole in this process (trainer/parallel/sharded_base.h).
// Without a gate they are always there.
#pragma once
#include <cstdint>

#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace graft {

class WeightGate {
 public:
  virtual ~WeightGate() = default;
  // The weights of this layer's linears may be read until the gate is asked for something else.
  virtual void use_layer(int64_t layer) = 0;
  virtual const HeadPieces& head() = 0;
};

}  // namespace graft
