#include "trainer/optimizers/schedule.h"

#include <algorithm>
#include <cmath>

namespace graft {

int64_t warmup_steps(const ScheduleOptions& schedule, int64_t total_steps) {
  if (schedule.warmup >= 1) return static_cast<int64_t>(schedule.warmup);
  return static_cast<int64_t>(std::ceil(schedule.warmup * static_cast<double>(total_steps)));
}

double learning_rate_at(const ScheduleOptions& schedule, double peak, int64_t step, int64_t total_steps) {
  const int64_t warmup = warmup_steps(schedule, total_steps);
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  if (schedule.shape == "constant") return peak;
  const double progress = static_cast<double>(step - warmup) / static_cast<double>(std::max<int64_t>(1, total_steps - warmup));
  if (schedule.shape == "linear") return peak * std::max(0.0, 1 - progress);
  return peak * 0.5 * (1 + std::cos(M_PI * std::min(1.0, progress)));
}

}  // namespace graft
