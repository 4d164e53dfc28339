// The GPUs that the fake driver shows, from the environment at each call:
//   FAKE_GPUS    "NAME|MAJOR|MINOR|TOTAL_GIB|FREE_GIB;...", in the driver's order before CUDA_VISIBLE_DEVICES ("1,0"; empty: none)
//   FAKE_DRIVER  what cuDriverGetVersion says (13000); FAKE_INIT  the error of cuInit (0)
#pragma once
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

struct FakeGpu {
  std::string name, pci_bus_id;
  int major = 0, minor = 0;
  size_t total = 0, free = 0;
};

inline std::string setting(const char* name, const char* fallback) {
  const char* value = std::getenv(name);
  return value ? value : fallback;
}

inline std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  return parts;
}

inline std::vector<FakeGpu> installed_gpus() {
  std::vector<FakeGpu> gpus;
  for (const auto& text : split(setting("FAKE_GPUS", ""), ';')) {
    const auto fields = split(text, '|');
    const auto gib = [&](size_t index) { return static_cast<size_t>(std::stod(fields.at(index)) * 1073741824.0); };
    gpus.push_back({fields.at(0), "0000:0" + std::to_string(gpus.size()) + ":00.0", std::stoi(fields.at(1)), std::stoi(fields.at(2)), gib(3), gib(4)});
  }
  return gpus;
}

inline std::vector<FakeGpu> visible_gpus() {
  const auto installed = installed_gpus();
  if (!std::getenv("CUDA_VISIBLE_DEVICES")) return installed;
  std::vector<FakeGpu> visible;
  for (const auto& index : split(setting("CUDA_VISIBLE_DEVICES", ""), ',')) visible.push_back(installed.at(std::stoul(index)));
  return visible;
}
