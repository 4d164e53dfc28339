// How far tensors are from a reference.
#pragma once
#include <ATen/ATen.h>

namespace graft {

// |got - expected| / |expected|, Frobenius norms in double precision on the CPU; `expected` may be all zeros.
inline double relative_error(const at::Tensor& got, const at::Tensor& expected) {
  const auto reference = expected.to(at::kCPU, at::kDouble);
  return ((got.to(at::kCPU, at::kDouble) - reference).norm() / (reference.norm() + 1e-30)).item<double>();
}

}  // namespace graft
