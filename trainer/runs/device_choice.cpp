#include "trainer/runs/device_choice.h"

#include <algorithm>

#include <fmt/format.h>

#include "kernels/common/error.h"
#include "trainer/runs/cuda_module.h"

namespace graft {
namespace {

constexpr int kLowestCapability = 80, kDriverVersion = 13000;   // bfloat16 tensor cores; what LibTorch 2.11 was built for

// Why a GPU cannot be used, as part of a sentence; empty: it can.
std::string problem_of(const CudaDevice& device) {
  if (device.capability() >= kLowestCapability) return {};
  return fmt::format("cuda:{} ({}) is of sm_{}, older than sm_{}", device.ordinal, device.name, device.capability(), kLowestCapability);
}

std::string problem_of_driver(const CudaListing& listing) {
  if (listing.devices.empty() || listing.driver_version >= kDriverVersion) return listing.problem;
  return fmt::format("the NVIDIA driver is for CUDA {}.{}, older than {}.0", listing.driver_version / 1000,
                     listing.driver_version % 1000 / 10, kDriverVersion / 1000);
}

std::string free_text(const CudaDevice& device) {
  if (device.free_bytes < 0) return fmt::format("{:.1f} GiB", static_cast<double>(device.total_bytes) / 1073741824.0);
  return fmt::format("{:.1f} of {:.1f} GiB free", static_cast<double>(device.free_bytes) / 1073741824.0, static_cast<double>(device.total_bytes) / 1073741824.0);
}

DeviceChoice choose_numbered(const std::string& wanted, const CudaListing& listing, std::string problem) {
  const int ordinal = std::stoi(wanted.substr(5));
  const auto it = std::find_if(listing.devices.begin(), listing.devices.end(), [&](const CudaDevice& device) { return device.ordinal == ordinal; });
  if (problem.empty() && it == listing.devices.end()) {
    problem = fmt::format("{} GPU{} visible, the first is cuda:0", listing.devices.size(), listing.devices.size() == 1 ? " is" : "s are");
  }
  if (problem.empty()) problem = problem_of(*it);
  if (!problem.empty()) fail("run", "expected run.device to name a GPU that this program can use, got {}: {} — name another, or set run.device: cpu", wanted, problem);
  return {*it, fmt::format("device {}: {}, sm_{}, {}", wanted, it->name, it->capability(), free_text(*it))};
}

std::vector<const CudaDevice*> usable_devices(const CudaListing& listing, std::string& problem) {
  std::vector<const CudaDevice*> usable;
  std::string reasons;
  for (const auto& device : listing.devices) {
    const auto reason = problem_of(device);
    if (reason.empty()) usable.push_back(&device);
    else reasons += (reasons.empty() ? "" : "; ") + reason;
  }
  if (problem.empty() && usable.empty()) problem = reasons;
  return usable;
}

DeviceChoice choose_any(const CudaListing& listing, std::string problem, LocalRank local) {
  const auto usable = usable_devices(listing, problem);
  if (problem.empty() && static_cast<int>(usable.size()) < local.size) {
    problem = fmt::format("{} processes train on this machine, which has {} GPU{} for them", local.size, usable.size(), usable.size() == 1 ? "" : "s");
  }
  if (!problem.empty()) return {std::nullopt, "device cpu: " + problem};
  const auto* best = usable[static_cast<size_t>(local.rank)];
  std::string which;
  if (local.size > 1) {
    which = ", one for each process";
  } else if (usable.size() > 1) {
    best = *std::max_element(usable.begin(), usable.end(), [](const auto* a, const auto* b) { return a->free_bytes < b->free_bytes; });
    which = fmt::format(", {} of {} GPUs", best->free_bytes < 0 ? "the first" : "the most", usable.size());
  }
  return {*best, fmt::format("device cuda:{}: {}, sm_{}, {}{}", best->ordinal, best->name, best->capability(), free_text(*best), which)};
}

}  // namespace

std::string DeviceChoice::name() const { return gpu ? fmt::format("cuda: {}, sm_{}", gpu->name, gpu->capability()) : "cpu"; }

DeviceChoice choose_device(const std::string& wanted, const CudaListing& listing, const std::string& module_problem, LocalRank local) {
  if (wanted == "cpu") return {};
  if (wanted != "auto" && local.size > 1) {
    fail("run", "expected run.device: auto or cpu for {} processes on one machine, got {} — with auto each takes a GPU of its own (CUDA_VISIBLE_DEVICES says among which)",
         local.size, wanted);
  }
  auto problem = problem_of_driver(listing);
  if (problem.empty()) problem = module_problem;
  return wanted == "auto" ? choose_any(listing, problem, local) : choose_numbered(wanted, listing, problem);
}

DeviceChoice prepare_device(const std::string& wanted, LocalRank local) {
  if (wanted == "cpu") return {};
  const auto listing = list_cuda_devices();
  const auto choice = choose_device(wanted, listing, cuda_module_missing(cuda_module_path()), local);
  if (!choice.gpu) return choice;
  const auto problem = load_cuda_module(cuda_module_path());
  return problem.empty() ? choice : choose_device(wanted, listing, problem, local);   // auto goes on on the CPU and says why
}

}  // namespace graft
