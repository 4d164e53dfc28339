#include "kernels/linear_kl/sparse_targets.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/common/error.h"

namespace graft {

SparseTargets sparse_targets(const SparseTeacher& teacher, int64_t num_rows, int64_t vocab, const KlOptions& options) {
  const int64_t entries = teacher.num_entries;
  const auto expected = static_cast<size_t>(num_rows * entries);
  if (entries < 1 || teacher.ids_MK.size() != expected || teacher.log_probabilities_MK.size() != expected ||
      (!teacher.tail_mass_M.empty() && static_cast<int64_t>(teacher.tail_mass_M.size()) != num_rows)) {
    fail("kernels", "linear_kl: expected {} ids and log-probabilities for each of {} rows and one tail mass a row or none, got {}, {} and {}", entries, num_rows,
         teacher.ids_MK.size(), teacher.log_probabilities_MK.size(), teacher.tail_mass_M.size());
  }
  if (teacher.temperature != options.temperature) {
    fail("kernels", "linear_kl: expected sparse entries of a teacher at temperature {}, got {} — what is not among the entries cannot be brought to another temperature; take them anew",
         options.temperature, teacher.temperature);
  }
  constexpr double kLeastTail = 1e-6;   // below it, what is missing to 1 is the rounding of log-probabilities
  SparseTargets targets{entries, std::vector<double>(expected, kNoEntry), std::vector<double>(static_cast<size_t>(num_rows), kNoEntry)};
  std::vector<int32_t> ids;
  for (int64_t n = 0; n < num_rows; ++n) {
    ids.clear();
    double sum = 0;
    bool impossible = false;
    const auto row = teacher.ids_MK.subspan(static_cast<size_t>(n * entries), static_cast<size_t>(entries));
    const auto given = teacher.log_probabilities_MK.subspan(static_cast<size_t>(n * entries), static_cast<size_t>(entries));
    for (size_t k = 0; k < row.size(); ++k) {
      if (row[k] == -1) continue;
      if (row[k] < 0 || row[k] >= vocab) fail("kernels", "linear_kl: expected a sparse teacher's ids from 0 to {}, or -1 for none, got {} in row {}", vocab - 1, row[k], n);
      if (!(given[k] <= 1e-3f)) fail("kernels", "linear_kl: expected log-probabilities of at most 0 of a sparse teacher, got {} in row {}", given[k], n);
      ids.push_back(row[k]);
      impossible = impossible || std::isinf(given[k]);
      sum += std::exp(static_cast<double>(given[k]));
    }
    std::sort(ids.begin(), ids.end());
    const auto twice = std::adjacent_find(ids.begin(), ids.end());
    if (twice != ids.end()) fail("kernels", "linear_kl: expected a sparse teacher's ids once a row, got {} twice in row {}", *twice, n);
    const bool all = static_cast<int64_t>(ids.size()) == vocab;
    const double missing = all || 1 - sum < kLeastTail ? 0 : 1 - sum;
    const double tail = teacher.tail_mass_M.empty() ? missing : teacher.tail_mass_M[static_cast<size_t>(n)];
    if (!(tail >= 0) || !(std::abs(sum + tail - 1) <= 1e-2)) {
      fail("kernels", "linear_kl: expected a sparse teacher's probabilities and the mass of its other tokens to add up to 1, got {} and {} in row {}", sum, tail, n);
    }
    if (all && tail > 0) fail("kernels", "linear_kl: expected no mass of other tokens where all {} are entries, got {} in row {}", vocab, tail, n);
    if (options.divergence == Divergence::kReverseKl && (impossible || (tail == 0 && !all))) {
      fail("kernels", "linear_kl: expected a mass of other tokens in row {} of a sparse teacher and no probability of 0, got {}: reverse KL is infinite there — take forward KL or Jensen-Shannon",
           n, tail);
    }
    const double log_sum = std::log(sum + tail);
    for (size_t k = 0; k < row.size(); ++k) {
      if (row[k] >= 0) targets.log_probabilities_MK[static_cast<size_t>(n * entries) + k] = given[k] - log_sum;
    }
    if (tail > 0) targets.log_tails_M[static_cast<size_t>(n)] = std::log(tail) - log_sum;
  }
  return targets;
}

}  // namespace graft
