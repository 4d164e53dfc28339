#include <torch/csrc/autograd/autograd.h>

#include "kernels/rms_norm/rms_norm.h"
#include "tests/kernels/torch/operators.h"

namespace graft {
namespace {

using testing::leaf;
using testing::random_tensor;

TEST(RmsNorm, EqualsTheSpecification) {
  for (const int64_t width : {1, 7, 64, 577}) {
    const auto x = leaf(random_tensor({13, width}, 1)), weight = random_tensor({width}, 2), gradient = random_tensor({13, width}, 3);
    const auto ours = rms_norm(x, weight, 1e-3), expected = rms_norm_reference(x, weight, 1e-3);
    EXPECT_LT(relative_error(ours, expected), 2e-6) << width;
    EXPECT_LT(relative_error(torch::autograd::grad({ours}, {x}, {gradient})[0], torch::autograd::grad({expected}, {x}, {gradient})[0]), 5e-6) << width;
  }
}

TEST(RmsNorm, RefusesOtherTypes) {
  EXPECT_THROW(rms_norm(at::zeros({2, 3}, at::kHalf), at::zeros({3}), 1e-5), std::runtime_error);
  EXPECT_THROW(rms_norm(at::zeros({2, 3}), at::zeros({4}), 1e-5), std::runtime_error);
}

}  // namespace
}  // namespace graft
