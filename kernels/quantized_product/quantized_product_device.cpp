#include "kernels/quantized_product/quantized_product.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <fmt/ranges.h>

#include "kernels/device_launch/device_launch.h"
#include "kernels/device_launch/row_type.h"
#include "kernels/quantized_product/quantized_product_plan.h"

namespace graft {
namespace {

using at::Tensor;

cuda::QuantizedMatrix launched(const FrozenWeight& weight, const Tensor& blocks) {
  if (blocks.sizes() != at::IntArrayRef{weight.rows(), weight.row_bytes()} || !blocks.is_contiguous()) {
    fail("kernels", "quantized_product: expected {} rows of {} bytes of {} blocks, got [{}]: a block is cut", weight.rows(), weight.row_bytes(), info(weight.type()).name,
         fmt::join(blocks.sizes(), ", "));
  }
  return {weight.type(), weight.rows(), weight.columns(), blocks.const_data_ptr()};
}

void check(const char* argument, const Tensor& tensor, const Tensor& like, int64_t rows, int64_t columns) {
  const bool beside = tensor.dim() == 2 && (tensor.stride(1) == 1 || columns <= 1);
  if (beside && tensor.size(0) == rows && tensor.size(1) == columns && tensor.scalar_type() == like.scalar_type() && tensor.device() == like.device()) return;
  fail("kernels", "quantized_product: expected {} as {} [{}, {}] on {} with the elements of a row beside each other, got {} [{}] on {}", argument,
       c10::toString(like.scalar_type()), rows, columns, like.device().str(), c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes(), ", "), tensor.device().str());
}

void multiply(const Tensor& x, const FrozenWeight& weight, Tensor& y, bool transposed, bool accumulate) {
  const int64_t inner = transposed ? weight.rows() : weight.columns(), outputs = transposed ? weight.columns() : weight.rows(), num_rows = y.size(0);
  check(transposed ? "dy" : "x", x, x, num_rows, inner);
  check(transposed ? "dx" : "y", y, x, num_rows, outputs);
  const Tensor* blocks = weight.device_blocks(x.device());
  const auto plan = quantized_product_plan(num_rows, outputs, inner);
  if (blocks && plan.fused && takes_kernels(x, has_row_type(x))) {
    // Blocks that somebody else brought (FrozenWeight::hold) may begin anywhere.
    const auto aligned = for_kernels(*blocks);
    const auto partials = at::empty({plan.num_splits > 1 ? plan.num_splits * num_rows * outputs : 0}, x.options().dtype(at::kFloat));
    launch_on(x, "quantized_product", cuda::QuantizedProduct{launched(weight, aligned), transposed, accumulate, row_type(x), num_rows, x.const_data_ptr(), x.stride(0),
                                                             y.data_ptr(), y.stride(0), plan.num_splits, plan.split, partials.data_ptr<float>()});
    return;
  }
  const auto matrix = weight.matrix(x.scalar_type(), x.device());
  if (accumulate) y.addmm_(x, transposed ? matrix : matrix.t());
  else at::mm_out(y, x, transposed ? matrix : matrix.t());
}

}  // namespace

void frozen_matmul(const Tensor& x_NC, const FrozenWeight& weight, Tensor& y_NO, bool accumulate) { multiply(x_NC, weight, y_NO, false, accumulate); }

void frozen_matmul_transposed(const Tensor& dy_NO, const FrozenWeight& weight, Tensor& dx_NC, bool accumulate) { multiply(dy_NO, weight, dx_NC, true, accumulate); }

Tensor dequantized(const FrozenWeight& weight, at::ScalarType type, c10::Device device) {
  const Tensor* blocks = weight.device_blocks(device);
  auto values = blocks ? at::empty({weight.rows(), weight.columns()}, blocks->options().dtype(type)) : Tensor();
  if (!blocks || !takes_kernels(values, has_row_type(values))) return {};
  const auto aligned = for_kernels(*blocks);
  launch_on(values, "dequantize", cuda::DequantizeMatrix{launched(weight, aligned), row_type(values), values.data_ptr()});
  return values;
}

}  // namespace graft
