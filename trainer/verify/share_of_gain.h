// How much of what training gained an export keeps: (exported - base) / (trained - base). 1: all of it; above 1: the export is better than the trained model by chance.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

namespace graft {

struct ShareOfGain {
  std::optional<double> share;
  std::string reason;   // why there is none
};

// Of mean losses over supervised tokens, in nats. None where training lowered the loss by less than 0.01: rounding alone then moves the share by tenths.
ShareOfGain share_of_gain_by_loss(double base, double trained, double exported);
// Of accuracies over `rows`. None where the trained model answers fewer than 10 rows more rightly than the base: one row would then be over a tenth.
ShareOfGain share_of_gain_by_accuracy(double base, double trained, double exported, int64_t rows);

}  // namespace graft
