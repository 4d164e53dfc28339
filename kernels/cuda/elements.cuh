// Rows of bfloat16 or float32 in memory, float32 in registers; four elements an access where the row allows it.
#pragma once
#include "kernels/cuda/device.cuh"

namespace graft::cuda {

using Bfloat16 = uint16_t;   // bit pattern

GRAFT_DEVICE float to_float(float value) { return value; }
GRAFT_DEVICE float to_float(Bfloat16 value) { return float_of(static_cast<uint32_t>(value) << 16); }

template <typename Element>
GRAFT_DEVICE Element from_float(float value);
template <>
GRAFT_DEVICE float from_float<float>(float value) {
  return value;
}
// Round to nearest even; NaN stays NaN.
template <>
GRAFT_DEVICE Bfloat16 from_float<Bfloat16>(float value) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<Bfloat16>((bits >> 16) | 0x40u);
  return static_cast<Bfloat16>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// `kCount` neighbours, moved in one access.
template <typename Element, int kCount>
struct alignas(sizeof(Element) * kCount) Pack {
  Element values[kCount];
};

}  // namespace graft::cuda
