#include "trainer/verify/share_of_gain.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace graft {
namespace {

using testing::HasSubstr;

TEST(ShareOfGain, ByLoss) {
  EXPECT_NEAR(*share_of_gain_by_loss(3, 1, 1.5).share, 0.75, 1e-12);
  EXPECT_NEAR(*share_of_gain_by_loss(3, 1, 3.5).share, -0.25, 1e-12) << "worse than the base";
  EXPECT_NEAR(*share_of_gain_by_loss(3, 1, 0.9).share, 1.05, 1e-12) << "better than the trained model";
  EXPECT_TRUE(share_of_gain_by_loss(1.01, 0.99, 1).share);
  const auto none = share_of_gain_by_loss(1.005, 1, 1);
  EXPECT_FALSE(none.share);
  EXPECT_THAT(none.reason, HasSubstr("lowered the mean loss by 0.0050 nats, fewer than 0.01"));
  EXPECT_FALSE(share_of_gain_by_loss(1, 2, 1.5).share) << "training made it worse";
  EXPECT_FALSE(share_of_gain_by_loss(1, std::nan(""), 1).share);
}

TEST(ShareOfGain, ByAccuracy) {
  EXPECT_NEAR(*share_of_gain_by_accuracy(0.1, 0.9, 0.7, 200).share, 0.75, 1e-12);
  EXPECT_NEAR(*share_of_gain_by_accuracy(0, 0.1, 0.09, 100).share, 0.9, 1e-12) << "ten rows are enough";
  const auto none = share_of_gain_by_accuracy(0, 0.09, 0.09, 100);
  EXPECT_FALSE(none.share);
  EXPECT_THAT(none.reason, HasSubstr("9 of 100 rows more rightly than the base, fewer than 10"));
  EXPECT_FALSE(share_of_gain_by_accuracy(0.9, 0.1, 0.5, 200).share);
}

}  // namespace
}  // namespace graft
