#include "trainer/evaluation/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "trainer/generation/sampling.h"

namespace graft {
namespace {

// Linear between the two nearest ranks, as numpy.percentile.
double quantile(const std::vector<double>& sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const auto above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

}  // namespace

Interval bootstrap(int64_t num_rows, const std::function<double(std::span<const int64_t>)>& statistic, const BootstrapOptions& options) {
  if (num_rows == 0) return {};
  std::vector<int64_t> rows(static_cast<size_t>(num_rows));
  std::iota(rows.begin(), rows.end(), 0);
  Interval interval;
  interval.value = interval.low = interval.high = statistic(rows);
  std::vector<double> values;
  for (int64_t resample = 0; resample < options.resamples; ++resample) {
    for (size_t draw = 0; draw < rows.size(); ++draw) {
      const double uniform = counter_uniform(options.seed, static_cast<uint64_t>(resample), draw);
      rows[draw] = static_cast<int64_t>(uniform * static_cast<double>(num_rows));
    }
    values.push_back(statistic(rows));
  }
  if (values.empty()) return interval;
  std::sort(values.begin(), values.end());
  interval.low = quantile(values, 0.025);
  interval.high = quantile(values, 0.975);
  return interval;
}

}  // namespace graft
