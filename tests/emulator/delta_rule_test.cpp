// The formulas by which the kernels of delta attention compute chunks, in double precision, against the recurrence and its slopes.
#include "tests/emulator/delta_rule.h"

#include <functional>
#include <random>

#include <gtest/gtest.h>

namespace graft::emulator {
namespace {

DeltaHead head_of(size_t tokens, size_t key_size, size_t value_size, bool channel_decay, double strongest) {
  DeltaHead h{tokens, key_size, value_size, channel_decay, {}, {}, {}, {}, {}};
  std::mt19937 random(3);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform(0, 1);
  for (size_t i = 0; i < tokens * key_size; ++i) {
    h.queries.push_back(normal(random) / std::sqrt(key_size));
    h.keys.push_back(normal(random) / std::sqrt(key_size));
  }
  for (size_t i = 0; i < tokens * value_size; ++i) h.values.push_back(normal(random));
  for (size_t i = 0; i < tokens; ++i) h.betas.push_back(uniform(random));
  for (size_t i = 0; i < tokens * (channel_decay ? key_size : 1); ++i) h.logs.push_back(-strongest * std::pow(uniform(random), 4));
  return h;
}

Doubles slope_of(size_t size) {
  Doubles slope;
  for (size_t i = 0; i < size; ++i) slope.push_back(std::sin(static_cast<double>(i)));
  return slope;
}

void expect_near(const char* what, const Doubles& got, const Doubles& wanted, double tolerance) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], wanted[i], tolerance * (1 + std::abs(wanted[i]))) << what << " at " << i;
}

class DeltaRule : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Decay, DeltaRule, testing::Bool(), [](const auto& info) { return info.param ? "OfAChannel" : "OfAHead"; });

TEST_P(DeltaRule, ChunksEqualTokens) {
  for (const size_t tokens : {1, 7, 16, 37}) {
    for (const double strongest : {0.5, 2000.0}) {
      const auto h = head_of(tokens, 6, 5, GetParam(), strongest);
      const auto slope = slope_of(tokens * 5);
      const auto wanted = token_by_token(h, slope);
      for (const size_t chunk : {1, 8, 16, 64}) {
        SCOPED_TRACE(testing::Message() << tokens << " tokens in chunks of " << chunk << ", decays to exp(-" << strongest << ")");
        const auto got = chunk_by_chunk(h, slope, chunk);
        expect_near("output", got.output, wanted.output, 1e-10);
        expect_near("dqueries", got.dqueries, wanted.dqueries, 1e-10);
        expect_near("dkeys", got.dkeys, wanted.dkeys, 1e-10);
        expect_near("dvalues", got.dvalues, wanted.dvalues, 1e-10);
        expect_near("dbetas", got.dbetas, wanted.dbetas, 1e-10);
        expect_near("dlogs", got.dlogs, wanted.dlogs, 1e-10);
      }
    }
  }
}

TEST_P(DeltaRule, GradientsAreSlopes) {
  const auto h = head_of(9, 4, 3, GetParam(), 0.7);
  const auto slope = slope_of(9 * 3);
  const auto gradients = token_by_token(h, slope);
  const auto numeric = [&](const std::function<Doubles&(DeltaHead&)>& of, const Doubles& wanted, const char* what) {
    for (size_t i = 0; i < wanted.size(); ++i) {
      double sums[2] = {0, 0};
      for (int side = 0; side < 2; ++side) {
        auto moved = h;
        of(moved)[i] += side == 0 ? -1e-5 : 1e-5;
        const auto output = token_by_token(moved, slope).output;
        for (size_t j = 0; j < output.size(); ++j) sums[side] += output[j] * slope[j];
      }
      ASSERT_NEAR((sums[1] - sums[0]) / 2e-5, wanted[i], 1e-8) << what << " at " << i;
    }
  };
  numeric([](DeltaHead& head) -> Doubles& { return head.queries; }, gradients.dqueries, "dqueries");
  numeric([](DeltaHead& head) -> Doubles& { return head.keys; }, gradients.dkeys, "dkeys");
  numeric([](DeltaHead& head) -> Doubles& { return head.values; }, gradients.dvalues, "dvalues");
  numeric([](DeltaHead& head) -> Doubles& { return head.betas; }, gradients.dbetas, "dbetas");
  numeric([](DeltaHead& head) -> Doubles& { return head.logs; }, gradients.dlogs, "dlogs");
}

}  // namespace
}  // namespace graft::emulator
