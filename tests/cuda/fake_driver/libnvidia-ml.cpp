// libnvidia-ml.so.1 as far as list_cuda_devices asks it: it knows all installed GPUs, visible or not.
#include "fake_gpus.h"

extern "C" {

struct Memory {
  unsigned long long total, free, used;
};

int nvmlInit_v2() { return 0; }
int nvmlShutdown() { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** device) {
  const auto gpus = installed_gpus();
  for (size_t i = 0; i < gpus.size(); ++i) {
    if (gpus[i].pci_bus_id == id) return *device = reinterpret_cast<void*>(i + 1), 0;
  }
  return 6;
}
int nvmlDeviceGetMemoryInfo(void* device, Memory* memory) {
  const auto gpu = installed_gpus().at(reinterpret_cast<size_t>(device) - 1);
  return *memory = {gpu.total, gpu.free, gpu.total - gpu.free}, 0;
}

}  // extern "C"
