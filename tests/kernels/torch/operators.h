// What the operator tests share: seeded tensors, weights, errors.
#pragma once
#include <memory>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "kernels/frozen_weight/frozen_weight.h"
#include "kernels/matrix_product/bf16_tile_product.h"
#include "tests/support/relative_error.h"

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
// Operators on bfloat16 tensors multiply in bfloat16 (by the portable tile where the machine has no better), or widen to float32.
class MultipliesInBf16 {
 public:
  explicit MultipliesInBf16(bool on) : before_(multiplies_in_bf16()) { set_multiplies_in_bf16(on); }
  ~MultipliesInBf16() { set_multiplies_in_bf16(before_); }
  MultipliesInBf16(const MultipliesInBf16&) = delete;

 private:
  bool before_;
};

inline at::Tensor leaf(const at::Tensor& x) { return x.detach().clone().requires_grad_(true); }

}  // namespace graft::testing
