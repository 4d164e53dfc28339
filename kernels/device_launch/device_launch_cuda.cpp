// What libgraft_cuda.so brings of graft: every kernel's launcher.
#include <c10/cuda/CUDAStream.h>

#include "kernels/device_launch/launcher_table.h"

extern "C" __attribute__((visibility("default"))) void graft_fill_launchers(graft::DeviceLaunchers& launchers) {
  launchers.fill_in();
  launchers.current_stream = [](int device) -> void* { return c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device)).stream(); };
}
