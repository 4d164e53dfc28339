#include "kernels/rms_norm/rms_norm_cpu.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "kernels/elementwise/typed_rows.h"

namespace graft::rms_norm_cpu {

std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& x_NC, const at::Tensor& weight_C, double epsilon) {
  auto y_NC = at::empty_like(x_NC);
  auto inverse_rms_N = at::empty({x_NC.size(0)}, at::kFloat);
  const int64_t width = x_NC.size(1);
  visit_elements(x_NC, [&](auto* x) {
    auto* y = static_cast<decltype(x)>(y_NC.data_ptr());
    at::parallel_for(0, x_NC.size(0), 16, [&](int64_t begin, int64_t end) {
      std::vector<float> row(width), normed(width);
      for (int64_t n = begin; n < end; ++n) {
        rows::to_float(x + n * width, width, row.data());
        inverse_rms_N.data_ptr<float>()[n] =
            rows::rms_norm(row.data(), weight_C.const_data_ptr<float>(), width, static_cast<float>(epsilon), normed.data());
        rows::from_float(normed.data(), width, y + n * width);
      }
    });
  });
  return {y_NC, inverse_rms_N};
}

at::Tensor backward(const at::Tensor& gradient_NC, const at::Tensor& x_NC, const at::Tensor& weight_C, const at::Tensor& inverse_rms_N) {
  auto dx_NC = at::empty_like(x_NC);
  const int64_t width = x_NC.size(1);
  visit_elements(x_NC, [&](auto* x) {
    const auto* gradient = static_cast<decltype(x)>(gradient_NC.data_ptr());
    auto* dx = static_cast<decltype(x)>(dx_NC.data_ptr());
    at::parallel_for(0, x_NC.size(0), 16, [&](int64_t begin, int64_t end) {
      std::vector<float> row(width), gradient_row(width), dx_row(width);
      for (int64_t n = begin; n < end; ++n) {
        rows::to_float(x + n * width, width, row.data());
        rows::to_float(gradient + n * width, width, gradient_row.data());
        rows::rms_norm_backward(gradient_row.data(), row.data(), weight_C.const_data_ptr<float>(), width,
                                inverse_rms_N.const_data_ptr<float>()[n], dx_row.data());
        rows::from_float(dx_row.data(), width, dx + n * width);
      }
    });
  });
  return dx_NC;
}

}  // namespace graft::rms_norm_cpu
