// Small tables that the host makes for kernels.
#pragma once
#include <cstring>
#include <span>

#include <ATen/ops/empty.h>

namespace graft {

// The values' bytes on like's device, as int32.
template <typename T>
at::Tensor to_device(std::span<const T> values, const at::Tensor& like) {
  static_assert(sizeof(T) % sizeof(int32_t) == 0);
  auto host = at::empty({static_cast<int64_t>(values.size_bytes() / sizeof(int32_t))}, at::kInt);
  if (!values.empty()) std::memcpy(host.data_ptr(), values.data(), values.size_bytes());
  return host.to(like.device());
}

}  // namespace graft
