// What a sparse teacher's entries say, checked and as one distribution a row.
#pragma once
#include <limits>
#include <vector>

#include "kernels/linear_kl/linear_kl.h"

namespace graft {

inline constexpr double kNoEntry = -std::numeric_limits<double>::infinity();  // the log-probability where there is none

struct SparseTargets {
  int64_t num_entries = 0;
  std::vector<double> log_probabilities_MK;         // minus infinity where there is no entry
  std::vector<double> log_tails_M;                  // of the rest; minus infinity: none
};

SparseTargets sparse_targets(const SparseTeacher& teacher, int64_t num_rows, int64_t vocab, const KlOptions& options);

}  // namespace graft
