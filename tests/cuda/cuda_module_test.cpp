// libgraft_cuda.so loads beside the program, also where there is no GPU, and registers the CUDA path of its operators.
#include <dlfcn.h>

#include <ATen/core/dispatch/Dispatcher.h>
#include <gtest/gtest.h>

namespace {

bool has_cuda_path(const char* name) {
  const auto op = c10::Dispatcher::singleton().findSchema({name, ""});
  return op.has_value() && op->hasKernelForDispatchKey(c10::DispatchKey::CUDA);
}

TEST(CudaModule, RegistersItself) {
  ASSERT_TRUE(c10::Dispatcher::singleton().findSchema({"graft::rms_norm_forward", ""}).has_value()) << "the program defines the operator";
  EXPECT_FALSE(has_cuda_path("graft::rms_norm_forward"));
  ASSERT_NE(dlopen(GRAFT_CUDA_MODULE, RTLD_NOW | RTLD_LOCAL), nullptr) << dlerror();
  EXPECT_TRUE(has_cuda_path("graft::rms_norm_forward"));
  EXPECT_TRUE(has_cuda_path("graft::rms_norm_backward"));
}

TEST(CudaModule, BringsNccl) {
  void* module = dlopen(GRAFT_CUDA_MODULE, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(module, nullptr) << dlerror();
  EXPECT_NE(dlsym(module, "graft_nccl_backend"), nullptr);
}

}  // namespace
