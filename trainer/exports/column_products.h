// What columns of a matrix are multiplied with, for rounding that makes up for its errors (error_feedback.h). No Torch here.
#pragma once
#include <span>

#include "checkpoints/weight_map.h"

namespace graft {

class ColumnProducts {
 public:
  virtual ~ColumnProducts() = default;
  // Sum of x x^T over some tokens, [columns, columns] in our order of the columns; empty: never multiplied with anything. Valid until the next call.
  virtual std::span<const double> of(const WeightRule& rule) = 0;
};

}  // namespace graft
