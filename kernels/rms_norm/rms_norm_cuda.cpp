// The CUDA path of graft::rms_norm_forward and graft::rms_norm_backward; part of libgraft_cuda.so, not of the program.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "kernels/rms_norm/rms_norm.cuh"

namespace graft {
namespace {

cuda::RowType row_type(const at::Tensor& x) {
  TORCH_INTERNAL_ASSERT(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16, "rms_norm: got ", x.scalar_type());
  return x.scalar_type() == at::kFloat ? cuda::RowType::kFloat32 : cuda::RowType::kBfloat16;
}

// Packed loads need 16 bytes; a view into the middle of a storage may have less.
at::Tensor aligned(const at::Tensor& x) {
  const auto dense = x.contiguous();
  return reinterpret_cast<uintptr_t>(dense.const_data_ptr()) % 16 == 0 ? dense : dense.clone();
}

template <typename Arguments>
void launch(const Arguments& arguments) {
  const char* error = cuda::launch_rms_norm(arguments, c10::cuda::getCurrentCUDAStream().stream());
  TORCH_CHECK(error == nullptr, "[graft.kernels] rms_norm could not be launched: ", error);
}

std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& x_NC, const at::Tensor& weight_C, double epsilon) {
  const c10::cuda::CUDAGuard guard(x_NC.device());
  const auto x = aligned(x_NC), weight = aligned(weight_C);
  auto y = at::empty_like(x);
  auto inverse_rms = at::empty({x.size(0)}, x.options().dtype(at::kFloat));
  launch(cuda::RmsNormForward{x.const_data_ptr(), weight.const_data_ptr<float>(), y.data_ptr(), inverse_rms.data_ptr<float>(), x.size(0),
                              static_cast<int>(x.size(1)), static_cast<float>(epsilon), row_type(x)});
  return {y, inverse_rms};
}

at::Tensor backward(const at::Tensor& gradient_NC, const at::Tensor& x_NC, const at::Tensor& weight_C, const at::Tensor& inverse_rms_N) {
  const c10::cuda::CUDAGuard guard(x_NC.device());
  const auto gradient = aligned(gradient_NC), x = aligned(x_NC), weight = aligned(weight_C);
  auto dx = at::empty_like(x);
  launch(cuda::RmsNormBackward{gradient.const_data_ptr(), x.const_data_ptr(), weight.const_data_ptr<float>(),
                               inverse_rms_N.const_data_ptr<float>(), dx.data_ptr(), x.size(0), static_cast<int>(x.size(1)), row_type(x)});
  return dx;
}

}  // namespace

TORCH_LIBRARY_IMPL(graft, CUDA, library) {
  library.impl("rms_norm_forward", forward);
  library.impl("rms_norm_backward", backward);
}

}  // namespace graft
