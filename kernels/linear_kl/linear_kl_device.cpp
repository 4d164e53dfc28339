// Blocks of logits by ATen's products, one kernel over their rows, the gradient by a product.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "kernels/device_launch/device_launch.h"
#include "kernels/linear_head/head_products.h"
#include "kernels/linear_head/logit_block.h"
#include "kernels/linear_kl/linear_kl_paths.h"
#include "kernels/linear_kl/sparse_targets.h"

namespace graft {
namespace {

// A sparse teacher's rows where the kernel reads them.
struct DeviceTargets {
  at::Tensor ids_MK, log_probabilities_MK, log_tails_M;
  int64_t num_entries;

  DeviceTargets(const SparseTeacher& teacher, const at::Tensor& hidden_MC, int64_t vocab, const KlOptions& options) : num_entries(teacher.num_entries) {
    const auto targets = sparse_targets(teacher, hidden_MC.size(0), vocab, options);
    ids_MK = tensor_of(teacher.ids_MK, hidden_MC);
    log_probabilities_MK = tensor_of(std::span<const double>(targets.log_probabilities_MK), hidden_MC).to(at::kFloat);
    log_tails_M = tensor_of(std::span<const double>(targets.log_tails_M), hidden_MC).to(at::kFloat);
  }

  cuda::SparseKlRows from(int64_t row, const cuda::KlProblem& problem) const {
    return {problem, ids_MK.const_data_ptr<int32_t>() + row * num_entries, log_probabilities_MK.const_data_ptr<float>() + row * num_entries, log_tails_M.const_data_ptr<float>() + row,
            static_cast<int>(num_entries)};
  }
};

}  // namespace

KlResult linear_kl_device(const at::Tensor& hidden_MC, const HeadPieces& head, const Teacher& teacher, std::span<const float> weights, const KlOptions& options) {
  const at::NoGradGuard no_gradient;
  const int64_t num_rows = hidden_MC.size(0), vocab = head.rows();
  const auto scales_M = row_scales(weights, num_rows, gradient_factor(options), hidden_MC).to(at::kFloat);
  const auto losses_M = at::empty({num_rows}, hidden_MC.options().dtype(at::kFloat));
  const auto* sparse = std::get_if<SparseTeacher>(&teacher);
  const auto targets = sparse ? std::make_optional<DeviceTargets>(*sparse, hidden_MC, vocab, options) : std::nullopt;
  KlResult result;
  if (options.want_gradient) result.gradient_MC = at::empty_like(hidden_MC);
  const int64_t most_rows = rows_of_block(num_rows, LogitBlock::row_bytes(vocab) * (sparse ? 1 : 2), options.buffer_bytes);
  const LogitBlock block(hidden_MC, vocab, most_rows), teacher_block(hidden_MC, vocab, sparse ? 0 : most_rows);
  for (int64_t first = 0; first < num_rows; first += most_rows) {
    const int64_t count = std::min(most_rows, num_rows - first);
    const auto hidden_BC = hidden_MC.narrow(0, first, count);
    head_product(hidden_BC, head, block.logits(count));
    const cuda::KlProblem problem{block.rows(head.softcap()), options.want_gradient ? scales_M.const_data_ptr<float>() + first : nullptr, losses_M.data_ptr<float>() + first, count,
                                  options.divergence, static_cast<float>(options.temperature), static_cast<float>(1 / options.temperature), static_cast<float>(options.mixture.teacher_weight),
                                  static_cast<float>(options.mixture.teacher_part), static_cast<float>(options.mixture.slope())};
    if (targets) {
      launch_on(hidden_MC, "linear_kl", targets->from(first, problem));
    } else {
      const auto* by_hidden = std::get_if<HiddenTeacher>(&teacher);
      if (by_hidden) {
        head_product(by_hidden->hidden_MC.narrow(0, first, count), by_hidden->head, teacher_block.logits(count));
      } else {
        teacher_block.logits(count).copy_(std::get<DenseTeacher>(teacher).logits_MV.narrow(0, first, count));
      }
      launch_on(hidden_MC, "linear_kl", cuda::KlRows{problem, teacher_block.rows(by_hidden ? by_hidden->head.softcap() : 0)});
    }
    if (options.want_gradient) result.gradient_MC.narrow(0, first, count).copy_(head_product_backward(block.gradient(count), hidden_BC, head));
  }
  losses_M.mul_(loss_factor(options));
  result.losses_M = values_of<float>(losses_M);
  result.weighted_loss = weighted_sum(losses_M, weights);
  return result;
}

}  // namespace graft
