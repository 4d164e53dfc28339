// Functions of one number that kernels share, against the C library's in double.
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda/activations.cuh"
#include "tests/emulator/buffer.h"

namespace graft::cuda {
namespace {

using emulator::Buffer;

struct Values {
  const float* x;
  float *tangent, *softplus, *sigmoid;
  int count;
};

GRAFT_KERNEL(kWarp) evaluate(const Values values) {
  for (int i = thread_in_block(); i < values.count; i += kWarp) {
    const float x = load(values.x + i);
    store(values.tangent + i, hyperbolic_tangent(x));
    store(values.softplus + i, softplus(x));
    store(values.sigmoid + i, sigmoid(x));
  }
}

TEST(Activations, AreTheCLibrarys) {
  std::vector<float> numbers = {0, 1e-20F, 0.25F, std::nextafter(0.25F, 0.0F), 20, std::nextafter(20.0F, 21.0F)};
  for (float x = 1e-6F; x < 40; x *= 1.03F) numbers.push_back(x);
  for (size_t i = numbers.size(); i-- > 0;) numbers.push_back(-numbers[i]);
  const Buffer<float> x(numbers);
  Buffer<float> tangent(x.size(), NAN), plus(x.size(), NAN), logistic(x.size(), NAN);
  LAUNCH(evaluate, 1, kWarp, 0, nullptr, Values{x.data(), tangent.data(), plus.data(), logistic.data(), static_cast<int>(x.size())});
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = x[i], exponential = std::exp(-exact), rounded = 4e-7 + 6e-8 * std::abs(exact);   // the exponent in float32
    EXPECT_NEAR(tangent[i], std::tanh(exact), 4e-7 * std::abs(std::tanh(exact))) << x[i];
    EXPECT_NEAR(plus[i], std::log1p(std::exp(exact)), rounded * std::log1p(std::exp(exact)) + 1e-20) << x[i];
    EXPECT_NEAR(logistic[i], 1 / (1 + exponential), rounded / (1 + exponential) + 1e-20) << x[i];
  }
}

}  // namespace
}  // namespace graft::cuda
