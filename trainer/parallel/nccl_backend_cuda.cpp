// NCCL between GPUs; part of libgraft_cuda.so, found by name (process_group.cpp).
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

// A backend with one reference, which the caller owns.
extern "C" c10d::Backend* graft_nccl_backend(c10d::Store* store, int rank, int size, int device, int64_t timeout_ms) {
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = std::chrono::milliseconds(timeout_ms);
  auto shared = c10::intrusive_ptr<c10d::Store>::reclaim_copy(store);
  auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(std::move(shared), rank, size, std::move(options));
  backend->setBoundDeviceId(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device)));
  return backend.release();
}
