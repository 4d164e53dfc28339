#include "trainer/verify/share_of_gain.h"

#include <cmath>

#include <fmt/format.h>

namespace graft {

namespace {

constexpr double kLeastLoss = 0.01;
constexpr int64_t kLeastRows = 10;

}  // namespace

ShareOfGain share_of_gain_by_loss(double base, double trained, double exported) {
  const double gain = base - trained;
  if (!(gain >= kLeastLoss)) return {std::nullopt, fmt::format("training lowered the mean loss by {:.4f} nats, fewer than {:g}", gain, kLeastLoss)};
  return {(base - exported) / gain, ""};
}

ShareOfGain share_of_gain_by_accuracy(double base, double trained, double exported, int64_t rows) {
  const auto gained = std::llround((trained - base) * static_cast<double>(rows));
  if (gained < kLeastRows) return {std::nullopt, fmt::format("the trained model answers {} of {} rows more rightly than the base, fewer than {}", gained, rows, kLeastRows)};
  return {(exported - base) / (trained - base), ""};
}

}  // namespace graft
