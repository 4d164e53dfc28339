// The CPU path: a block of rows of logits from the student and from the teacher, which become the gradient and what it needs.
#include <cmath>

#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>

#include "kernels/elementwise/rows_cpu.h"
#include "kernels/frozen_product/frozen_product.h"
#include "kernels/linear_head/head_products_cpu.h"
#include "kernels/linear_kl/divergence_rows_cpu.h"
#include "kernels/linear_kl/linear_kl_paths.h"
#include "kernels/linear_kl/sparse_targets.h"
#include "kernels/scratch/scratch.h"

namespace graft {
namespace {

// One outcome's part in a divergence in double, from log-probabilities of teacher and student.
class Outcome {
 public:
  Outcome(const KlOptions& options, double log_p, double log_q) : kind_(options.divergence), p_(std::exp(log_p)), q_(std::exp(log_q)) {
    if (kind_ == Divergence::kForwardKl) {
      loss_ = p_ > 0 ? p_ * (log_p - log_q) : 0;
    } else if (kind_ == Divergence::kReverseKl) {
      g_ = q_ > 0 ? log_q - log_p : 0;
      loss_ = q_ * g_;
    } else {
      const auto [a, m] = options.mixture;
      const double mixed = m * p_ + (1 - m) * q_, log_m = std::log(mixed), of_student = q_ > 0 ? (1 - a) * (log_q - log_m) : 0;
      g_ = of_student + (q_ > 0 ? options.mixture.slope() * (q_ - p_) / mixed : 0);
      loss_ = q_ * of_student + (p_ > 0 ? a * p_ * (log_p - log_m) : 0);
    }
  }
  double loss() const { return loss_; }
  double mean() const { return q_ * g_; }
  double gradient(double mean) const { return kind_ == Divergence::kForwardKl ? q_ - p_ : q_ * (g_ - mean); }

 private:
  Divergence kind_;
  double p_, q_, g_ = 0, loss_ = 0;
};

// The loss of a row of logits against entries and the rest; with a factor the logits become the gradient times it. Entries' logits are taken out of the row,
// which then sums what is left without cancellation.
double sparse_row(const SparseTeacher& teacher, const SparseTargets& targets, int64_t row, const KlOptions& options, float* logits, int64_t vocab, float factor) {
  const auto inverse_temperature = static_cast<float>(1 / options.temperature);
  const int32_t* ids = teacher.ids_MK.data() + row * targets.num_entries;
  const double* log_p = targets.log_probabilities_MK.data() + row * targets.num_entries;
  std::vector<double> tempered(static_cast<size_t>(targets.num_entries), kNoEntry);
  int64_t num_entries = 0;
  double largest = kNoEntry, sum = 0;
  for (size_t k = 0; k < tempered.size(); ++k) {
    if (ids[k] < 0) continue;
    tempered[k] = static_cast<double>(logits[ids[k]]) / options.temperature;
    largest = std::max(largest, tempered[k]);
    logits[ids[k]] = -INFINITY;
    ++num_entries;
  }
  const double log_rest = num_entries < vocab ? rows::log_sum_exp(logits, vocab, inverse_temperature) : kNoEntry;
  largest = std::max(largest, log_rest);
  for (const double value : tempered) sum += std::exp(value - largest);
  const double log_sum = largest + std::log(sum + std::exp(log_rest - largest));
  const Outcome rest(options, targets.log_tails_M[static_cast<size_t>(row)], log_rest - log_sum);
  const auto entry = [&](size_t k) { return Outcome(options, log_p[k], tempered[k] - log_sum); };
  double loss = rest.loss(), mean = rest.mean();
  for (size_t k = 0; k < tempered.size(); ++k) {
    if (ids[k] < 0) continue;
    loss += entry(k).loss();
    mean += entry(k).mean();
  }
  if (!options.want_gradient) return loss;
  // The rest's gradient is its tokens' in proportion to their probabilities.
  if (num_entries < vocab) {
    rows::exp_and_sum(logits, vocab, inverse_temperature, static_cast<float>(log_rest));
    rows::scale(logits, vocab, static_cast<float>(rest.gradient(mean) * factor));
  }
  for (size_t k = 0; k < tempered.size(); ++k) {
    if (ids[k] >= 0) logits[ids[k]] = static_cast<float>(entry(k).gradient(mean) * factor);
  }
  return loss;
}

// The loss of a row of logits against a teacher's, which is overwritten; with a factor the student's logits become the gradient times it.
double dense_row(const KlOptions& options, float* student, float* teacher, int64_t vocab, float factor) {
  const auto scale = static_cast<float>(1 / options.temperature);
  const float log_student = rows::log_sum_exp(student, vocab, scale), log_teacher = rows::log_sum_exp(teacher, vocab, scale);
  const auto sums = rows::divergence(options.divergence, options.mixture, student, teacher, vocab, scale, log_student, log_teacher);
  if (options.want_gradient) rows::divergence_backward(options.divergence, student, teacher, vocab, sums.mean, factor);
  return sums.loss;
}

}  // namespace

KlResult linear_kl_cpu(const at::Tensor& hidden_MC, const HeadPieces& head, const Teacher& teacher, std::span<const float> weights, const KlOptions& options) {
  const int64_t num_rows = hidden_MC.size(0), vocab = head.rows(), stride = scratch_row_stride(vocab);
  const auto* sparse = std::get_if<SparseTeacher>(&teacher);
  const auto targets = sparse ? sparse_targets(*sparse, num_rows, vocab, options) : SparseTargets();
  KlResult result;
  result.losses_M.resize(static_cast<size_t>(num_rows));
  if (options.want_gradient) result.gradient_MC = at::empty_like(hidden_MC);
  const int64_t block = rows_of_block(num_rows, stride * 4 * (sparse ? 1 : 2), options.buffer_bytes);
  Scratch scratch;
  float* logits = scratch.floats(block * stride);
  float* of_teacher = sparse ? nullptr : scratch.floats(block * stride);
  for (int64_t first = 0; first < num_rows; first += block) {
    const int64_t count = std::min(block, num_rows - first);
    head_cpu::logits(hidden_MC, first, count, head, logits, stride);
    if (const auto* by_hidden = std::get_if<HiddenTeacher>(&teacher)) {
      head_cpu::logits(by_hidden->hidden_MC, first, count, by_hidden->head, of_teacher, stride);
    } else if (const auto* dense = std::get_if<DenseTeacher>(&teacher)) {
      at::from_blob(of_teacher, {count, vocab}, {stride, 1}, at::kFloat).copy_(dense->logits_MV.narrow(0, first, count));
    }
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> capped(head.softcap() > 0 && options.want_gradient ? vocab : 0);
      for (int64_t b = begin; b < end; ++b) {
        float* row = logits + b * stride;
        std::copy_n(row, capped.size(), capped.data());
        const int64_t n = first + b;
        const auto factor = static_cast<float>((weights.empty() ? 1.0 : weights[static_cast<size_t>(n)]) * gradient_factor(options));
        const double loss = sparse ? sparse_row(*sparse, targets, n, options, row, vocab, factor) : dense_row(options, row, of_teacher + b * stride, vocab, factor);
        result.losses_M[static_cast<size_t>(n)] = static_cast<float>(loss * loss_factor(options));
        if (options.want_gradient) head_cpu::finish_gradient(hidden_MC, head, capped.data(), row);
      }
    });
    if (options.want_gradient) head_cpu::hidden_gradient(logits, stride, first, count, head, result.gradient_MC);
  }
  for (int64_t n = 0; n < num_rows; ++n) {
    const auto i = static_cast<size_t>(n);
    result.weighted_loss += static_cast<double>(result.losses_M[i]) * (weights.empty() ? 1.0 : weights[i]);
  }
  return result;
}

}  // namespace graft
