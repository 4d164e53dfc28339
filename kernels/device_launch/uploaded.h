// What the host knows of a batch and kernels read: offsets, positions, tiles.
#pragma once
#include <span>

#include <ATen/core/Tensor.h>

namespace graft {

// Bytes (a multiple of 4) as int32 on the device of x. The layers of a step ask for the same: a thread remembers its last uploads by their content, and waits
// for the device once, not once a layer.
at::Tensor uploaded(std::span<const std::byte> bytes, const at::Tensor& x);

template <typename T>
at::Tensor uploaded(std::span<const T> values, const at::Tensor& x) {
  static_assert(sizeof(T) % sizeof(int32_t) == 0);
  return uploaded(std::as_bytes(values), x);
}

}  // namespace graft
