#include "kernels/linear_kl/linear_kl.h"

#include "kernels/device_launch/device_launch.h"
#include "kernels/linear_head/head_products.h"
#include "kernels/linear_kl/linear_kl_paths.h"

namespace graft {
namespace {

// (Sparse entries: sparse_targets().)
void check_teacher(const Teacher& teacher, const at::Tensor& hidden_MC, int64_t vocab) {
  const int64_t num_rows = hidden_MC.size(0);
  if (const auto* by_hidden = std::get_if<HiddenTeacher>(&teacher)) {
    check_head_rows("linear_kl", "the teacher's hidden states", by_hidden->hidden_MC, by_hidden->head);
    if (by_hidden->hidden_MC.size(0) != num_rows || by_hidden->head.rows() != vocab || by_hidden->hidden_MC.device() != hidden_MC.device()) {
      fail("kernels", "linear_kl: expected of the teacher {} rows on {} and a head of the student's {} tokens, got {} rows on {} and {} tokens", num_rows, hidden_MC.device().str(), vocab,
           by_hidden->hidden_MC.size(0), by_hidden->hidden_MC.device().str(), by_hidden->head.rows());
    }
  } else if (const auto* dense = std::get_if<DenseTeacher>(&teacher)) {
    const auto& logits = dense->logits_MV;
    if (logits.dim() != 2 || logits.size(0) != num_rows || logits.size(1) != vocab || !logits.is_floating_point()) {
      fail("kernels", "linear_kl: expected a dense teacher of floating type [{}, {}], got {} in {} dimensions, the last of {}", num_rows, vocab, c10::toString(logits.scalar_type()),
           logits.dim(), logits.dim() > 0 ? logits.size(-1) : 0);
    }
  }
}

void check(const at::Tensor& hidden_MC, const HeadPieces& head, const Teacher& teacher, std::span<const float> weights, const KlOptions& options) {
  check_head_rows("linear_kl", "hidden", hidden_MC, head);
  check_teacher(teacher, hidden_MC, head.rows());
  if (!weights.empty() && static_cast<int64_t>(weights.size()) != hidden_MC.size(0)) {
    fail("kernels", "linear_kl: expected one weight for each of {} rows or none, got {}", hidden_MC.size(0), weights.size());
  }
  if (!(options.temperature > 0) || !(options.temperature < 1e6)) fail("kernels", "linear_kl: expected a temperature above 0, got {}", options.temperature);
  const auto [a, m] = options.mixture;
  if (options.divergence == Divergence::kMixture && !(m > 0 && m < 1 && a >= 0 && a <= 1)) {
    fail("kernels", "linear_kl: expected the teacher's part of a mixture above 0 and below 1 and its weight from 0 to 1, got {} and {} — at parts of 0 and 1 take forward and reverse KL", m, a);
  }
}

// The contiguous teacher.
Teacher contiguous(const Teacher& teacher) {
  if (const auto* by_hidden = std::get_if<HiddenTeacher>(&teacher)) return HiddenTeacher{by_hidden->hidden_MC.contiguous(), by_hidden->head};
  return teacher;
}

}  // namespace

KlResult linear_kl(const at::Tensor& hidden_MC, const LinearHead& head, const Teacher& teacher, std::span<const float> weights_M, const KlOptions& options) {
  return linear_kl(hidden_MC, WholeHead(head), teacher, weights_M, options);
}

KlResult linear_kl(const at::Tensor& hidden_MC, const HeadPieces& head, const Teacher& teacher, std::span<const float> weights_M, const KlOptions& options) {
  check(hidden_MC, head, teacher, weights_M, options);
  const auto* sparse = std::get_if<SparseTeacher>(&teacher);
  if (takes_kernels(hidden_MC, !sparse || sparse->num_entries <= cuda::kMostSparseEntries)) {
    return linear_kl_device(hidden_MC.contiguous(), head, contiguous(teacher), weights_M, options);
  }
  if (takes_fast_path(hidden_MC)) return linear_kl_cpu(hidden_MC.contiguous(), head, contiguous(teacher), weights_M, options);
  return linear_kl_reference(hidden_MC, head, teacher, weights_M, options);
}

}  // namespace graft
