// How an operator in the program starts its kernels.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>

#include "kernels/common/error.h"
#include "kernels/common/operator_path.h"
#include "kernels/device_launch/launcher_table.h"

namespace graft {

// Is x where kernels run: on a GPU, or, in tests, with the emulator? `supported`: kernels exist for what the operator was given; where not, the operator is
// computed by plain ATen operations, which tests can forbid (operator_path.h).
bool takes_kernels(const at::Tensor& x, bool supported = true);

// Contiguous and at a multiple of 16 bytes, as kernels read: x, or a copy.
at::Tensor for_kernels(const at::Tensor& x);

// On x's device and the stream that LibTorch uses there. MachineError with the driver's words where that fails.
void* stream_of(const at::Tensor& x);
template <typename Arguments>
void launch_on(const at::Tensor& x, const char* operator_name, const Arguments& arguments) {
  const c10::OptionalDeviceGuard guard(x.is_cuda() ? std::make_optional(x.device()) : std::nullopt);
  const char* problem = device_launchers().of<Arguments>()(arguments, stream_of(x));
  if (problem) throw MachineError("kernels", fmt::format("{} could not be started: {}", operator_name, problem));
}

}  // namespace graft
