#include "kernels/device_launch/device_launch.h"

#include <ATen/ops/empty_like.h>

namespace graft {

bool takes_kernels(const at::Tensor& x, bool supported) {
  const bool there = x.is_cuda() || detail::operator_path == OperatorPath::kEmulated;
  if (!there || !device_launchers().current_stream) return false;
  if (!supported) ++detail::plain_paths;
  return supported;
}

at::Tensor for_kernels(const at::Tensor& x) {
  const auto dense = x.contiguous();
  return reinterpret_cast<uintptr_t>(dense.const_data_ptr()) % 16 == 0 ? dense : dense.clone();
}

void* stream_of(const at::Tensor& x) { return device_launchers().current_stream(x.is_cuda() ? x.get_device() : -1); }

}  // namespace graft
