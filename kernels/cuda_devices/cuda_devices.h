// The GPUs that this process may use, asked of the driver without making a context: libcuda.so.1 and libnvidia-ml.so.1 are opened by name when
// asked, so that a machine without a GPU loads nothing. CUDA_VISIBLE_DEVICES is the driver's: hidden GPUs are not listed, N counts those left.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace graft {

struct CudaDevice {
  int ordinal = 0;              // N of cuda:N
  std::string name;             // "NVIDIA H100 80GB HBM3"
  int major = 0, minor = 0;     // compute capability
  int64_t total_bytes = 0;
  int64_t free_bytes = -1;      // -1: NVML does not say
  int capability() const { return 10 * major + minor; }
};

struct CudaListing {
  int driver_version = 0;       // the newest CUDA it runs: 13000 is 13.0; 0: there is no driver
  std::string problem;          // why `devices` is empty, as part of a sentence
  std::vector<CudaDevice> devices;
};

struct CudaLibraries {          // as dlopen takes them; tests give their own
  std::string driver = "libcuda.so.1", management = "libnvidia-ml.so.1";
};

CudaListing list_cuda_devices(const CudaLibraries& libraries = {});

}  // namespace graft
