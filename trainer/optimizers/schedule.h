// The learning rate of a step: linear warm-up, then cosine to 0, linear to 0 or constant. A pure function.
#pragma once
#include <cstdint>

#include "trainer/recipe/recipe.h"

namespace graft {

int64_t warmup_steps(const ScheduleOptions& schedule, int64_t total_steps);
// step from 0; the first step of a warm-up of W steps has peak / W.
double learning_rate_at(const ScheduleOptions& schedule, double peak, int64_t step, int64_t total_steps);

}  // namespace graft
