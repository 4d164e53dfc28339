#include "kernels/cuda_devices/cuda_devices.h"

#include <algorithm>
#include <optional>

#include <dlfcn.h>
#include <fmt/format.h>

namespace graft {
namespace {

// Of cuda.h and nvml.h, which need not be installed.
constexpr int kCapabilityMajor = 75, kCapabilityMinor = 76, kNoDevice = 100;
struct NvmlMemory {
  unsigned long long total, free, used;
};

// Stays open: a driver that has started may have threads.
class Library {
 public:
  explicit Library(const std::string& name) : handle_(dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) {}
  explicit operator bool() const { return handle_ != nullptr; }

  // Calls a function of the library; its error code, or nothing where the library lacks it.
  template <typename... Arguments>
  std::optional<int> call(const char* name, Arguments... arguments) const {
    auto* function = reinterpret_cast<int (*)(Arguments...)>(dlsym(handle_, name));
    return function ? std::optional<int>(function(arguments...)) : std::nullopt;
  }
  template <typename... Arguments>
  bool succeeds(const char* name, Arguments... arguments) const {
    return call(name, arguments...) == 0;
  }

 private:
  void* handle_;
};

std::string why(const Library& driver, int error) {
  const char* text = nullptr;
  driver.call("cuGetErrorString", error, &text);
  return fmt::format("error {} ({})", error, text ? text : "unknown");
}

// Free bytes by PCI address: NVML counts the GPUs that CUDA_VISIBLE_DEVICES hides, so its numbers are not ours.
int64_t free_bytes_of(const Library& management, const char* pci_bus_id) {
  void* device = nullptr;
  NvmlMemory memory = {};
  const bool known = management.succeeds("nvmlDeviceGetHandleByPciBusId_v2", pci_bus_id, &device) &&
                     management.succeeds("nvmlDeviceGetMemoryInfo", device, &memory);
  return known ? static_cast<int64_t>(memory.free) : -1;
}

std::optional<CudaDevice> describe(const Library& driver, const Library* management, int ordinal) {
  CudaDevice device;
  device.ordinal = ordinal;
  int handle = 0;
  char name[256] = {}, pci_bus_id[64] = {};
  size_t total = 0;
  const bool known = driver.succeeds("cuDeviceGet", &handle, ordinal) && driver.succeeds("cuDeviceGetName", &name[0], int{sizeof name}, handle) &&
                     driver.succeeds("cuDeviceGetAttribute", &device.major, kCapabilityMajor, handle) &&
                     driver.succeeds("cuDeviceGetAttribute", &device.minor, kCapabilityMinor, handle) &&
                     driver.succeeds("cuDeviceTotalMem_v2", &total, handle);
  if (!known) return std::nullopt;
  device.name = name;
  device.total_bytes = static_cast<int64_t>(total);
  if (management && driver.succeeds("cuDeviceGetPCIBusId", &pci_bus_id[0], int{sizeof pci_bus_id}, handle)) {
    device.free_bytes = std::min(free_bytes_of(*management, pci_bus_id), device.total_bytes);   // a slice of a GPU (MIG) has no more than its own
  }
  return device;
}

}  // namespace

CudaListing list_cuda_devices(const CudaLibraries& libraries) {
  CudaListing listing;
  const Library driver(libraries.driver);
  if (!driver) {
    listing.problem = "this machine has no NVIDIA driver (" + libraries.driver + ")";
    return listing;
  }
  driver.call("cuDriverGetVersion", &listing.driver_version);
  int count = 0;
  auto error = driver.call("cuInit", 0u);
  if (error == 0) error = driver.call("cuDeviceGetCount", &count);
  if (error != 0 && error != kNoDevice) {
    listing.problem = "the NVIDIA driver does not start: " + (error ? why(driver, *error) : libraries.driver + " lacks cuInit or cuDeviceGetCount");
    return listing;
  }
  const Library management(libraries.management);
  const bool managed = management && management.succeeds("nvmlInit_v2");
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    if (auto device = describe(driver, managed ? &management : nullptr, ordinal)) listing.devices.push_back(std::move(*device));
  }
  if (managed) management.call("nvmlShutdown");
  if (listing.devices.empty()) listing.problem = "the NVIDIA driver shows no GPU (CUDA_VISIBLE_DEVICES may hide them)";
  return listing;
}

}  // namespace graft
