// The kernel of linear_cross_entropy, compiled for the CPU, against sums in double: every type of rows, widths around a pack and a step, every option.
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda/elements.cuh"
#include "kernels/linear_cross_entropy/cross_entropy_rows.cuh"
#include "tests/emulator/buffer.h"

namespace graft::cuda {
namespace {

using emulator::Buffer;

struct Case {
  int rows = 3, width = 1000;
  float softcap = 0, z_loss = 0, label_smoothing = 0;
  bool gradient = true;
};

template <typename Logit, typename Gradient>
constexpr LogitType kType = sizeof(Logit) == 2 ? LogitType::kBfloat16 : sizeof(Gradient) == 2 ? LogitType::kFloat32ToBfloat16 : LogitType::kFloat32;

template <typename Logit, typename Gradient>
void check(const Case& c) {
  SCOPED_TRACE(testing::Message() << c.rows << " rows of " << c.width);
  const int64_t stride = (c.width + 7) / 8 * 8 + 8;   // further apart than they must be
  Buffer<Logit> logits(static_cast<size_t>(c.rows * stride), from_float<Logit>(77));   // what lies between rows is no logit
  Buffer<int32_t> labels(static_cast<size_t>(c.rows));
  Buffer<float> scales(labels.size()), losses(labels.size()), log_sums(labels.size());
  Buffer<int32_t> correct(labels.size());
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 3);
  for (int n = 0; n < c.rows; ++n) {
    const auto i = static_cast<size_t>(n);
    float best = -INFINITY;
    for (int v = 0; v < c.width; ++v) {
      auto& logit = logits[static_cast<size_t>(n * stride + v)] = from_float<Logit>(normal(random));
      if (n == 0 && to_float(logit) > best) best = to_float(logit), labels[i] = v;   // the first row is right
    }
    if (n > 0) labels[i] = n == 1 ? c.width - 1 : static_cast<int32_t>(random() % static_cast<unsigned>(c.width));
    scales[i] = 0.25F * static_cast<float>(n) + 0.5F;
  }
  const std::vector<Logit> before(logits.data(), logits.data() + logits.size());
  ASSERT_EQ(launch(CrossEntropyRows{{logits.data(), stride, c.width, c.softcap, kType<Logit, Gradient>}, labels.data(), c.gradient ? scales.data() : nullptr, losses.data(), log_sums.data(),
                                    correct.data(), c.rows, c.z_loss, c.label_smoothing},
                   nullptr),
            nullptr);
  const double tolerance = sizeof(Gradient) == 4 ? 2e-6 : 4e-3;
  for (int n = 0; n < c.rows; ++n) {
    const auto i = static_cast<size_t>(n);
    std::vector<double> capped(static_cast<size_t>(c.width)), slopes(capped.size(), 1);
    double largest = -INFINITY, sum = 0, mean = 0;
    for (size_t v = 0; v < capped.size(); ++v) {
      capped[v] = to_float(before[static_cast<size_t>(n * stride) + v]);
      if (c.softcap > 0) {
        const double t = std::tanh(capped[v] / c.softcap);
        capped[v] = c.softcap * t;
        slopes[v] = 1 - t * t;
      }
      largest = std::max(largest, capped[v]);
      mean += capped[v] / c.width;
    }
    for (const double value : capped) sum += std::exp(value - largest);
    const auto label = static_cast<size_t>(labels[i]);
    const double log_sum = largest + std::log(sum), s = c.label_smoothing;
    const double loss = log_sum - (1 - s) * capped[label] - s * mean + c.z_loss * log_sum * log_sum;
    EXPECT_NEAR(log_sums[i], log_sum, 2e-6 * (1 + std::abs(log_sum)));
    EXPECT_NEAR(losses[i], loss, 2e-6 * (1 + std::abs(log_sum) + std::abs(loss)));
    EXPECT_EQ(correct[i], capped[label] >= largest ? 1 : 0);
    if (!c.gradient) continue;
    const auto* row = reinterpret_cast<const Gradient*>(logits.data() + n * stride);
    double error = 0, size = 0;
    for (size_t v = 0; v < capped.size(); ++v) {
      const double gradient = scales[i] * slopes[v] * (std::exp(capped[v] - log_sum) * (1 + 2 * c.z_loss * log_sum) - s / c.width - (v == label ? 1 - s : 0));
      error += std::pow(to_float(row[v]) - gradient, 2);
      size += gradient * gradient;
    }
    EXPECT_LE(std::sqrt(error), tolerance * (std::sqrt(size) + 0.05)) << "row " << n;
  }
  for (size_t i = 0; i < logits.size(); ++i) {
    const bool between_rows = static_cast<int64_t>(i) % stride >= c.width;
    if (!c.gradient || between_rows) {
      EXPECT_EQ(to_float(logits[i]), to_float(before[i])) << "not the kernel's to write";
    }
  }
}

template <typename Types>
class CrossEntropyRowsCuda : public testing::Test {
 protected:
  static void check(const Case& c) { cuda::check<typename Types::first_type, typename Types::second_type>(c); }
};
using RowTypes = testing::Types<std::pair<float, float>, std::pair<float, Bfloat16>, std::pair<Bfloat16, Bfloat16>>;
TYPED_TEST_SUITE(CrossEntropyRowsCuda, RowTypes);

TYPED_TEST(CrossEntropyRowsCuda, Widths) {
  for (const int width : {1, 3, 4, 8, 9, 1000, 1023, 1024, 1029, 2048, 2051, 5000}) this->check({.width = width});
}
TYPED_TEST(CrossEntropyRowsCuda, OneRowAndNone) {
  this->check({.rows = 1});
  this->check({.rows = 0});
}
TYPED_TEST(CrossEntropyRowsCuda, WithoutGradient) { this->check({.softcap = 2, .gradient = false}); }
TYPED_TEST(CrossEntropyRowsCuda, SoftCap) { this->check({.width = 1501, .softcap = 2}); }
TYPED_TEST(CrossEntropyRowsCuda, ZLoss) { this->check({.width = 1501, .z_loss = 0.01F}); }
TYPED_TEST(CrossEntropyRowsCuda, LabelSmoothing) { this->check({.width = 1501, .label_smoothing = 0.1F}); }
TYPED_TEST(CrossEntropyRowsCuda, AllAtOnce) { this->check({.rows = 5, .width = 3003, .softcap = 5, .z_loss = 0.003F, .label_smoothing = 0.3F}); }

TEST(CrossEntropyRowsCuda, RefusesRowsThatPacksCannotRead) {
  Buffer<float> logits(64);
  const auto launched = [&](float* rows, int64_t stride, int width) {
    return launch(CrossEntropyRows{{rows, stride, width, 0, LogitType::kFloat32}, nullptr, nullptr, nullptr, nullptr, nullptr, 2, 0, 0}, nullptr);
  };
  for (const char* problem : {launched(logits.data() + 1, 8, 8), launched(logits.data(), 12, 12)}) EXPECT_NE(std::string(problem ? problem : "").find("16 bytes"), std::string::npos);
  for (const char* problem : {launched(logits.data(), 8, 9), launched(logits.data(), 8, 0)}) EXPECT_NE(std::string(problem ? problem : "").find("overlap"), std::string::npos);
}

}  // namespace
}  // namespace graft::cuda
