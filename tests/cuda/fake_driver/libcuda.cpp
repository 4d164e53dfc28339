// libcuda.so.1 as far as list_cuda_devices asks it.
#include <cstring>

#include "fake_gpus.h"

extern "C" {

int cuInit(unsigned) {
  const int error = std::stoi(setting("FAKE_INIT", "0"));
  return error != 0 ? error : visible_gpus().empty() ? 100 : 0;
}
int cuDriverGetVersion(int* version) { return *version = std::stoi(setting("FAKE_DRIVER", "13000")), 0; }
int cuGetErrorString(int, const char** text) { return *text = "as the driver puts it", 0; }
int cuDeviceGetCount(int* count) { return *count = static_cast<int>(visible_gpus().size()), 0; }
int cuDeviceGet(int* device, int ordinal) { return *device = 40 + ordinal, 0; }   // a handle is no ordinal
int cuDeviceGetName(char* name, int size, int device) { return std::strncpy(name, visible_gpus().at(device - 40).name.c_str(), size), 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  const auto gpu = visible_gpus().at(device - 40);
  return *value = attribute == 75 ? gpu.major : attribute == 76 ? gpu.minor : -1, 0;
}
int cuDeviceTotalMem_v2(size_t* bytes, int device) { return *bytes = visible_gpus().at(device - 40).total, 0; }
int cuDeviceGetPCIBusId(char* id, int size, int device) { return std::strncpy(id, visible_gpus().at(device - 40).pci_bus_id.c_str(), size), 0; }

}  // extern "C"
