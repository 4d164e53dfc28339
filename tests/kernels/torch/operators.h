// What the operator tests share: seeded tensors, weights, errors.
#pragma once
#include <memory>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "kernels/frozen_weight/frozen_weight.h"

namespace graft::testing {

inline at::Tensor random_tensor(std::vector<int64_t> shape, uint64_t seed, double scale = 1) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator, at::TensorOptions(at::kFloat)) * scale;
}

inline FrozenWeight frozen(const at::Tensor& weight_OC) {
  auto copy = std::make_shared<at::Tensor>(weight_OC.contiguous().clone());
  return FrozenWeight(TensorType::kF32, copy->size(0), copy->size(1), static_cast<const std::byte*>(copy->const_data_ptr()), copy);
}

// |x - y| / |y|
inline double relative_error(const at::Tensor& x, const at::Tensor& y) {
  return ((x.to(at::kDouble) - y.to(at::kDouble)).norm() / (y.to(at::kDouble).norm() + 1e-30)).item<double>();
}

inline at::Tensor leaf(const at::Tensor& x) { return x.detach().clone().requires_grad_(true); }

}  // namespace graft::testing
