// Parts of rows in global memory as float32 in registers, in one access where the row has as many elements left.
#pragma once
#include "kernels/cuda/elements.cuh"

namespace graft::cuda {

// values = row[first .. first + kCount], with `otherwise` past the row's end. The first lies at a multiple of a pack's size.
template <typename Element, int kCount>
GRAFT_DEVICE void load_values(float (&values)[kCount], const Element* row, int first, int width, float otherwise) {
  if (first + kCount <= width) {
    const auto pack = load(reinterpret_cast<const Pack<Element, kCount>*>(row + first));
    GRAFT_UNROLL
    for (int k = 0; k < kCount; ++k) values[k] = to_float(pack.values[k]);
  } else {
    GRAFT_UNROLL
    for (int k = 0; k < kCount; ++k) values[k] = first + k < width ? to_float(load(row + first + k)) : otherwise;
  }
}

template <typename Element, int kCount>
GRAFT_DEVICE void store_values(Element* row, int first, int width, const float (&values)[kCount]) {
  if (first + kCount <= width) {
    Pack<Element, kCount> pack;
    GRAFT_UNROLL
    for (int k = 0; k < kCount; ++k) pack.values[k] = from_float<Element>(values[k]);
    store(reinterpret_cast<Pack<Element, kCount>*>(row + first), pack);
  } else {
    GRAFT_UNROLL
    for (int k = 0; k < kCount; ++k) {
      if (first + k < width) store(row + first + k, from_float<Element>(values[k]));
    }
  }
}

}  // namespace graft::cuda
