#include "trainer/report/machine_info.h"

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <sstream>

#include "checkpoints/hash.h"

namespace graft {
namespace {

// The value of "key : value" in /proc/cpuinfo's first processor.
std::string cpu_field(const std::string& key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line) && !line.empty();) {
    if (!line.starts_with(key)) continue;
    const size_t colon = line.find(':');
    if (colon != std::string::npos && line.find_first_not_of(" \t", key.size()) == colon) {
      const size_t begin = line.find_first_not_of(' ', colon + 1);
      return begin == std::string::npos ? "" : line.substr(begin);
    }
  }
  return {};
}

std::string instruction_set() {
#if defined(__aarch64__)
  const std::string field = cpu_field("Features");
  const char* const widest_first[] = {"sve2", "sve", "bf16", "asimd"};
#else
  const std::string field = cpu_field("flags");
  const char* const widest_first[] = {"amx_bf16", "avx512_bf16", "avx512_vnni", "avx512f", "avx2", "avx", "sse4_2"};
#endif
  std::istringstream words(field);
  const std::set<std::string> flags{std::istream_iterator<std::string>(words), {}};
  for (const char* flag : widest_first) {
    if (flags.contains(flag)) return flag;
  }
  return "baseline";
}

// Cores of the affinity mask, fewer under a cgroup quota (cpu.max: "quota period" in microseconds, or "max").
int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  double quota = 0, period = 0;
  if (file >> quota >> period && period > 0) cores = std::min(cores, std::max(1, static_cast<int>(std::ceil(quota / period))));
  return cores;
}

int64_t usable_memory() {
  int64_t bytes = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  std::ifstream file("/sys/fs/cgroup/memory.max");
  int64_t limit = 0;
  if (file >> limit && limit > 0) bytes = std::min(bytes, limit);
  return bytes;
}

}  // namespace

MachineInfo machine_info() {
  MachineInfo machine;
  machine.cpu = cpu_field("model name");
  if (machine.cpu.empty()) machine.cpu = "unknown";
  machine.instruction_set = instruction_set();
  machine.cores = usable_cores();
  machine.memory_bytes = usable_memory();
  utsname system{};   // its nodename is the host's and stays out
  if (uname(&system) == 0) machine.kernel = std::string(system.sysname) + " " + system.release;
  return machine;
}

nlohmann::ordered_json to_json(const MachineInfo& machine) {
  nlohmann::ordered_json json = {{"cpu", machine.cpu},
                                 {"instruction_set", machine.instruction_set},
                                 {"cores", machine.cores},
                                 {"memory_bytes", machine.memory_bytes},
                                 {"kernel", machine.kernel}};
  if (!machine.gpu.empty()) json["gpu"] = machine.gpu;
  return json;
}

std::string program_build_id() {
  static const std::string kId = sha256_file("/proc/self/exe");
  return kId;
}

}  // namespace graft
