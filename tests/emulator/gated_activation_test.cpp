// The kernels of gated activations, compiled for the CPU, against the formulas in double; gradients against differences of those.
#include "kernels/gated_activation/gated_activation.cuh"

#include <cmath>

#include "tests/emulator/block.h"
#include "tests/emulator/rows.h"

namespace graft::cuda {
namespace {

using emulator::Buffer;
using Kind = GatedActivationRows::Kind;

constexpr float kAlpha = 1.702F, kLimit = 0.8F;   // of random values, many lie beyond

double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

double expected(Kind kind, double gate, double up) {
  switch (kind) {
    case Kind::kSwiGlu:
      return gate / (1 + std::exp(-gate)) * up;
    case Kind::kGeluTanhGated:
      return gelu(gate) * up;
    case Kind::kGeluTanh:
      return gelu(gate);
    case Kind::kClampedSwiGlu:
      break;
  }
  const double limit = kLimit, g = std::min(gate, limit), u = std::clamp(up, -limit, limit);
  return g / (1 + std::exp(-double(kAlpha) * g)) * (u + 1);
}

// Where gates and ups of y's element i stand in x.
struct Places {
  size_t gate, up;
};
Places places(Kind kind, bool interleaved, size_t width, size_t i) {
  if (kind == Kind::kGeluTanh) return {i, i};
  if (interleaved) return {2 * i, 2 * i + 1};
  const size_t first = i / width * 2 * width + i % width;
  return {first, first + width};
}

template <typename Element>
void check(Kind kind, bool interleaved, int num_rows, int width, double scale = 1) {
  SCOPED_TRACE(testing::Message() << num_rows << " rows of " << width << ", kind " << static_cast<int>(kind) << (interleaved ? ", interleaved" : ""));
  const auto count = static_cast<size_t>(num_rows) * static_cast<size_t>(width), inputs = kind == Kind::kGeluTanh ? count : 2 * count;
  Buffer<Element> x(inputs), y(count), gradient(count), dx(inputs);
  fill_normal(x, 1, 0, static_cast<float>(scale));
  fill_normal(gradient, 2);
  if (kind == Kind::kClampedSwiGlu && count > 0) x[0] = from_float<Element>(kLimit);   // at a limit its slope is the one inside
  const GatedActivationRows of{x.data(), num_rows, width, kind, interleaved, kAlpha, kLimit, emulator::kRowType<Element>};
  ASSERT_EQ(launch(GatedActivationForward{of, y.data()}, nullptr), nullptr);
  ASSERT_EQ(launch(GatedActivationBackward{of, gradient.data(), dx.data()}, nullptr), nullptr);
  const auto values = doubles(x), g = doubles(gradient);
  std::vector<double> expected_y(count), expected_dx(inputs);
  for (size_t i = 0; i < count; ++i) {
    const auto [at_gate, at_up] = places(kind, interleaved, static_cast<size_t>(width), i);
    const double gate = values[at_gate], up = values[at_up];
    expected_y[i] = expected(kind, gate, up);
    constexpr double kStep = 1e-6;
    // One-sided where a limit is near.
    const auto slope = [&](double at, double limit_above, double limit_below, const auto& f) {
      const double above = at <= limit_above && at + kStep > limit_above ? 0 : kStep, below = at >= limit_below && at - kStep < limit_below ? 0 : kStep;
      return (f(at + above) - f(at - below)) / (above + below);
    };
    const bool clamped = kind == Kind::kClampedSwiGlu;
    expected_dx[at_gate] = g[i] * slope(gate, clamped ? kLimit : HUGE_VAL, -HUGE_VAL, [&](double value) { return expected(kind, value, up); });
    if (kind != Kind::kGeluTanh) {
      expected_dx[at_up] =
          g[i] * slope(up, clamped ? kLimit : HUGE_VAL, clamped ? -kLimit : -HUGE_VAL, [&](double value) { return expected(kind, gate, value); });
    }
  }
  const double terms = 2e-6 * scale * scale + 1e-9;
  expect_rows(y, expected_y, terms, "y");
  expect_rows(dx, expected_dx, terms, "dx");
}

template <typename Element>
class GatedActivationKernels : public testing::Test {};
TYPED_TEST_SUITE(GatedActivationKernels, emulator::RowElements);

TYPED_TEST(GatedActivationKernels, EqualTheFormulaInDouble) {
  constexpr int kWide = kWidestPack<TypeParam>;
  for (const auto kind : {Kind::kSwiGlu, Kind::kGeluTanhGated, Kind::kClampedSwiGlu, Kind::kGeluTanh}) {
    for (const bool interleaved : {false, true}) {
      if (interleaved && kind == Kind::kGeluTanh) continue;
      check<TypeParam>(kind, interleaved, 3, 24 * kWide);
      check<TypeParam>(kind, interleaved, 2, 130 * kWide);   // more than a block
      check<TypeParam>(kind, interleaved, 5, 37);
      check<TypeParam>(kind, interleaved, 1, 1);
      check<TypeParam>(kind, interleaved, 0, 64);
      check<TypeParam>(kind, interleaved, 1, 40, 12);   // saturated
    }
  }
}

TEST(GatedActivationKernels, LetNotANumberPass) {
  for (const auto kind : {Kind::kSwiGlu, Kind::kGeluTanhGated, Kind::kClampedSwiGlu, Kind::kGeluTanh}) {
    for (const size_t at : {size_t{0}, size_t{4}}) {   // a gate, an up
      if (kind == Kind::kGeluTanh && at == 4) continue;
      Buffer<float> x(8, 0.5F), y(4), gradient(4, 1.0F), dx(8);
      x[at] = NAN;
      const GatedActivationRows of{x.data(), 1, 4, kind, false, kAlpha, kLimit, RowType::kFloat32};
      ASSERT_EQ(launch(GatedActivationForward{of, y.data()}, nullptr), nullptr);
      ASSERT_EQ(launch(GatedActivationBackward{of, gradient.data(), dx.data()}, nullptr), nullptr);
      EXPECT_TRUE(std::isnan(y[0]) && std::isnan(dx[0])) << static_cast<int>(kind) << " " << at;
      EXPECT_FALSE(std::isnan(y[1]) || std::isnan(dx[1])) << static_cast<int>(kind) << " " << at;
    }
  }
}

}  // namespace
}  // namespace graft::cuda
