// Numbers in memory: float32, bfloat16, float16. In registers they are float32.
#pragma once
#include <type_traits>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/row_type.cuh"

namespace graft::cuda {

constexpr float kLog2E = 1.44269504088896340736F;

template <typename T>
GRAFT_DEVICE T lesser(T a, T b) { return a < b ? a : b; }
template <typename T>
GRAFT_DEVICE T greater(T a, T b) { return a > b ? a : b; }

struct Bfloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

GRAFT_DEVICE float to_float(float value) { return value; }
GRAFT_DEVICE float to_float(Bfloat16 value) { return float_of(static_cast<uint32_t>(value.bits) << 16); }
GRAFT_DEVICE float to_float(Float16 value) { return float_of_float16(value.bits); }

// Round to nearest even; NaN stays NaN.
template <typename Element>
GRAFT_DEVICE Element from_float(float value) {
  if constexpr (std::is_same<Element, float>::value) {
    return value;
  } else if constexpr (std::is_same<Element, Bfloat16>::value) {
    return {bfloat16_bits(value)};
  } else {
    return {float16_bits(value)};
  }
}

// Two neighbours in one register, the first in the low half.
template <typename Element>
GRAFT_DEVICE uint32_t pair_of(float first, float second) {
  static_assert(sizeof(Element) == 2, "bfloat16 or float16");
  return std::is_same<Element, Bfloat16>::value ? bfloat16_pair(first, second) : float16_pair(first, second);
}

// `kCount` neighbours, moved in one access.
template <typename Element, int kCount>
struct alignas(sizeof(Element) * kCount) Pack {
  Element values[kCount];
};
// As many as an access of 16 bytes moves.
template <typename Element>
constexpr int kWidestPack = 16 / static_cast<int>(sizeof(Element));

// Host: f(Element()) with the type that the rows are of.
template <typename Function>
void for_row_type(RowType type, const Function& function) {
  switch (type) {
    case RowType::kFloat32: return function(float());
    case RowType::kBfloat16: return function(Bfloat16());
    case RowType::kFloat16: return function(Float16());
  }
}

}  // namespace graft::cuda
