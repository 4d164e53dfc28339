// libgraft_cuda.so loads beside the program, also where there is no GPU, and brings the launchers of its kernels.
#include <dlfcn.h>

#include <gtest/gtest.h>

#include "kernels/device_launch/launcher_table.h"

namespace {

TEST(CudaModule, FillsTheTableOfLaunchers) {
  void* module = dlopen(GRAFT_CUDA_MODULE, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(module, nullptr) << dlerror();
  const auto fill = reinterpret_cast<graft::FillLaunchers>(dlsym(module, "graft_fill_launchers"));
  ASSERT_NE(fill, nullptr);
  graft::DeviceLaunchers launchers;
  fill(launchers);
  EXPECT_NE(launchers.current_stream, nullptr);
  EXPECT_NE(launchers.of<graft::cuda::RmsNormForward>(), nullptr);
  EXPECT_NE(launchers.of<graft::cuda::AttentionBackward>(), nullptr);
}

TEST(CudaModule, BringsNccl) {
  void* module = dlopen(GRAFT_CUDA_MODULE, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(module, nullptr) << dlerror();
  EXPECT_NE(dlsym(module, "graft_nccl_backend"), nullptr);
}

}  // namespace
