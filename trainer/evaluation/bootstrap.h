// Percentile bootstrap intervals (Efron 1979): rows are drawn with replacement, a statistic is computed of each resample.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace graft {

struct Interval {
  double value = 0, low = 0, high = 0;   // of all rows; 2.5 % and 97.5 % of the resamples
};

struct BootstrapOptions {
  int64_t resamples = 1000;
  uint64_t seed = 0;
};

// statistic(rows): rows are indices below num_rows, with repeats. A pure function of its arguments. num_rows 0: all zero.
Interval bootstrap(int64_t num_rows, const std::function<double(std::span<const int64_t>)>& statistic, const BootstrapOptions& options = {});

}  // namespace graft
