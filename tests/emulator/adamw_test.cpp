// The kernels of AdamW, compiled for the CPU, against the formula in double.
#include "kernels/adamw/adamw.cuh"

#include <cmath>

#include "tests/emulator/block.h"
#include "tests/emulator/rows.h"

namespace graft::cuda {
namespace {

using emulator::Buffer;

struct State {
  Buffer<float> gradients, parameters, first_moment, second_moment;
  Buffer<double> partial_sums, norm;

  // The moments are of the size that gradients of that size leave.
  explicit State(int64_t size, float gradient_size = 1)
      : gradients(static_cast<size_t>(size)),
        parameters(gradients.size()),
        first_moment(gradients.size()),
        second_moment(gradients.size()),
        partial_sums(static_cast<size_t>(adamw_blocks(size)), NAN),
        norm(1, -1) {
    fill_normal(gradients, 1, 0, gradient_size);
    fill_normal(parameters, 2);
    fill_normal(first_moment, 3, 0, 0.1F * gradient_size);
    fill_normal(second_moment, 4, 0.5F * gradient_size * gradient_size, 0.1F * gradient_size * gradient_size);
    for (size_t i = 0; i < second_moment.size(); ++i) second_moment[i] = std::abs(second_moment[i]);
  }

  AdamWUpdate update(double clip) {
    return {gradients.data(),
            parameters.data(),
            first_moment.data(),
            second_moment.data(),
            static_cast<int64_t>(gradients.size()),
            partial_sums.data(),
            norm.data(),
            clip,
            0.9F,
            0.99F,
            1e-3F,
            0.05F,
            0.3F,
            0.98F};
  }
};

void check(int64_t size, double clip, float gradient_size) {
  SCOPED_TRACE(testing::Message() << size << " elements, clip " << clip);
  State state(size, gradient_size);
  const auto g = doubles(state.gradients);
  auto p = doubles(state.parameters), m = doubles(state.first_moment), v = doubles(state.second_moment);
  const auto of = state.update(clip);
  ASSERT_EQ(launch(of, nullptr), nullptr);
  long double squares = 0;
  for (const double value : g) squares += static_cast<long double>(value) * value;
  const auto norm = static_cast<double>(std::sqrt(squares));
  EXPECT_NEAR(state.norm[0], norm, 1e-15 * norm);
  const double factor = clip > 0 ? std::min(1.0, clip / (norm + 1e-6)) : 1;
  for (size_t i = 0; i < g.size(); ++i) {
    const double gradient = g[i] * factor;
    m[i] += (1 - double(of.beta1)) * (gradient - m[i]);
    v[i] = of.beta2 * v[i] + (1 - double(of.beta2)) * gradient * gradient;
    p[i] = p[i] * of.keep - of.step_size * m[i] / (std::sqrt(v[i]) / of.correction + of.epsilon);
  }
  expect_rows(state.first_moment, m, 1e-6 * gradient_size, "first moment");
  expect_rows(state.second_moment, v, 1e-6 * gradient_size * gradient_size, "second moment");
  expect_rows(state.parameters, p, 1e-6, "parameter");
}

TEST(AdamWKernels, EqualTheFormulaInDouble) {
  for (const int64_t size : {0, 1, 3, 4, 1027, 4096, 4097, 20002}) {
    check(size, 0, 1);
    check(size, 0.5, 1);   // clipped
    check(size, 1e4, 1);   // not that large
  }
  check(1000, 1, 1e-3F);
  check(1000, 1e-8, 1e-9F);   // a norm below what the divisor adds to it
}

// More blocks than one has threads to add up their sums.
TEST(AdamWKernels, AddUpManyBlocks) {
  EXPECT_EQ(adamw_blocks(0), 1);
  EXPECT_EQ(adamw_blocks(4097), 2);
  EXPECT_EQ(adamw_blocks(int64_t{1} << 40), 1024);
  check(300 * 4096 + 3, 1, 1);
}

// float32 would lose the small gradients beside a large one.
TEST(AdamWKernels, SumInDouble) {
  State state(4096, 0);
  for (size_t i = 0; i < state.gradients.size(); ++i) state.gradients[i] = 1e-3F;
  state.gradients[5] = 1e3F;
  ASSERT_EQ(launch(state.update(0), nullptr), nullptr);
  const double squares = 1e6 + 4095 * double(1e-3F) * double(1e-3F);
  EXPECT_NEAR(state.norm[0], std::sqrt(squares), 1e-12 * std::sqrt(squares));
  EXPECT_GT(std::sqrt(squares) - 1e3, 1e-6);
}

TEST(AdamWKernels, UpdateNothingFromGradientsThatAreNotFinite) {
  for (const float wrong : {NAN, HUGE_VALF, -HUGE_VALF}) {
    for (const size_t at : {size_t{0}, size_t{5000}}) {
      State state(5001);
      state.gradients[at] = wrong;
      const auto before = std::tuple(doubles(state.parameters), doubles(state.first_moment), doubles(state.second_moment));
      ASSERT_EQ(launch(state.update(1), nullptr), nullptr);
      EXPECT_FALSE(std::isfinite(state.norm[0]));
      EXPECT_EQ(before, std::tuple(doubles(state.parameters), doubles(state.first_moment), doubles(state.second_moment)));
    }
  }
}

TEST(AdamWKernels, GiveTheSameBitsWhateverTheOrderOfBlocks) {
  std::vector<std::pair<double, std::vector<double>>> runs;
  for (const uint64_t seed : {1, 2}) {
    emulator::settings().seed = seed;
    State state(50000);
    ASSERT_EQ(launch(state.update(1), nullptr), nullptr);
    runs.emplace_back(state.norm[0], doubles(state.parameters));
  }
  emulator::settings().seed = 1;
  EXPECT_EQ(runs[0], runs[1]);
}

}  // namespace
}  // namespace graft::cuda
