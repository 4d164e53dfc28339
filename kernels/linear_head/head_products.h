// Products with a head in plain ATen, any floating type and device. Logits are in the wide type: float32 for bfloat16.
#pragma once
#include <algorithm>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "kernels/linear_head/linear_head.h"

namespace graft {

// logits_BV = hidden head^T, without the softcap. Rows of logits may lie further apart than they are long.
void head_product(const at::Tensor& hidden_BC, const HeadPieces& head, const at::Tensor& logits_BV);

// gradient_BV head: of hidden, in its type, or wider where several pieces are summed.
at::Tensor head_product_backward(const at::Tensor& gradient_BV, const at::Tensor& hidden_BC, const HeadPieces& head);

// Values of the host where `like` lies.
template <typename T>
at::Tensor tensor_of(std::span<const T> values, const at::Tensor& like) {
  auto tensor = at::empty({static_cast<int64_t>(values.size())}, c10::CppTypeToScalarType<T>::value);
  std::copy(values.begin(), values.end(), tensor.template data_ptr<T>());
  return tensor.to(like.device());
}

// weight * scale of each of `num_rows` rows, float64; no weights: all 1.
at::Tensor row_scales(std::span<const float> weights_M, int64_t num_rows, double scale, const at::Tensor& like);

// Results of rows on the host: in T, and summed with the rows' weights in double.
template <typename T>
std::vector<T> values_of(const at::Tensor& of_rows_M) {
  const auto host = of_rows_M.to(at::kCPU, c10::CppTypeToScalarType<T>::value).contiguous();
  return {host.template const_data_ptr<T>(), host.template const_data_ptr<T>() + host.numel()};
}
double weighted_sum(const at::Tensor& losses_M, std::span<const float> weights_M);

// UserError unless hidden is [M, columns of the head] in bfloat16 or float32.
void check_head_rows(const char* operator_name, const char* argument, const at::Tensor& hidden_MC, const HeadPieces& head);

}  // namespace graft
