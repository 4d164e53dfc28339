#include "kernels/linear_head/head_products.h"

#include <ATen/ATen.h>

#include "kernels/common/error.h"
#include "kernels/elementwise/typed_rows.h"

namespace graft {
namespace {

// out = a b in the wide type: a GPU multiplies bfloat16 and keeps its float32 sums; the CPU has no such product and multiplies wide copies.
void wide_product(const at::Tensor& a, const at::Tensor& b, at::Tensor out) {
  const auto wide = wide_type(a.scalar_type());
  if (a.scalar_type() != wide && a.is_cuda()) {
    at::mm_out(out, a, b, wide);
  } else {
    at::mm_out(out, a.to(wide), b.to(wide));
  }
}

}  // namespace

void head_product(const at::Tensor& hidden_BC, const HeadPieces& head, const at::Tensor& logits_BV) {
  for_pieces(head, [&](int64_t first, const FrozenWeight& piece) {
    wide_product(hidden_BC, piece.matrix(hidden_BC.scalar_type(), hidden_BC.device()).t(), logits_BV.narrow(1, first, piece.rows()));
  });
}

at::Tensor head_product_backward(const at::Tensor& gradient_BV, const at::Tensor& hidden_BC, const HeadPieces& head) {
  at::Tensor sum;
  for_pieces(head, [&](int64_t first, const FrozenWeight& piece) {
    const auto part = at::mm(gradient_BV.narrow(1, first, piece.rows()).to(hidden_BC.scalar_type()), piece.matrix(hidden_BC.scalar_type(), hidden_BC.device()));
    sum = sum.defined() ? sum.to(wide_type(hidden_BC.scalar_type())) + part : part;
  });
  return sum;
}

at::Tensor row_scales(std::span<const float> weights_M, int64_t num_rows, double scale, const at::Tensor& like) {
  const auto type = like.options().dtype(at::kDouble);
  return weights_M.empty() ? at::full({num_rows}, scale, type) : tensor_of(weights_M, like).to(at::kDouble) * scale;
}

double weighted_sum(const at::Tensor& losses_M, std::span<const float> weights_M) {
  const auto losses = values_of<double>(losses_M);
  double sum = 0;
  for (size_t i = 0; i < losses.size(); ++i) sum += losses[i] * (weights_M.empty() ? 1.0 : weights_M[i]);
  return sum;
}

void check_head_rows(const char* operator_name, const char* argument, const at::Tensor& hidden_MC, const HeadPieces& head) {
  if (hidden_MC.dim() != 2 || hidden_MC.size(1) != head.columns()) {
    fail("kernels", "{}: expected {} [rows, {}], as the head has columns, got {} dimensions, the last of {}", operator_name, argument, head.columns(), hidden_MC.dim(),
         hidden_MC.dim() > 0 ? hidden_MC.size(-1) : 0);
  }
  if (hidden_MC.scalar_type() != at::kFloat && hidden_MC.scalar_type() != at::kBFloat16) {
    fail("kernels", "{}: expected {} in bfloat16 or float32, got {}", operator_name, argument, c10::toString(hidden_MC.scalar_type()));
  }
}

}  // namespace graft
