#include "trainer/runs/cuda_module.h"

#include <cstdlib>

#include <dlfcn.h>

#include <ATen/Context.h>

#include "kernels/device_launch/launcher_table.h"

namespace graft {

namespace fs = std::filesystem;

fs::path cuda_module_path() { return fs::read_symlink("/proc/self/exe").parent_path() / "libgraft_cuda.so"; }

std::string cuda_module_missing(const fs::path& path) {
  if (fs::exists(path)) return {};
  return "libgraft_cuda.so is not beside the program (a build with -DGRAFT_WITH_CUDA=ON makes it)";
}

std::string load_cuda_module(const fs::path& path) {
  auto problem = cuda_module_missing(path);
  if (!problem.empty()) return problem;
  // LibTorch gives cuBLAS a workspace of its own for each stream, which is what makes products repeat their bits. Where this is set it reads the size with a regular
  // expression at every product, 0.3 ms each (measured, 2.11), and a run's bytes would depend on the environment.
  unsetenv("CUBLAS_WORKSPACE_CONFIG");
  void* module = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!module) return std::string("libgraft_cuda.so does not load: ") + dlerror();
  const auto fill = reinterpret_cast<FillLaunchers>(dlsym(module, "graft_fill_launchers"));
  if (!fill) return "libgraft_cuda.so is not of this build of graft (graft_fill_launchers is not in it)";
  fill(device_launchers());
  auto& context = at::globalContext();
  context.setDeterministicAlgorithms(true, /*warn_only=*/false);
  context.setDeterministicFillUninitializedMemory(false);   // we never read what we did not write
  context.setAllowTF32CuBLAS(false);
  context.setAllowTF32CuDNN(false);
  context.setAllowBF16ReductionCuBLAS(false);
  return {};
}

}  // namespace graft
