#include "trainer/distillation/label_targets.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "kernels/linear_head/head_products.h"

namespace graft {

std::vector<float> minifinetuning_shares(const at::Tensor& hidden_MC, const HeadPieces& head, std::span<const int32_t> labels_M, double threshold, int64_t buffer_bytes) {
  const at::NoGradGuard no_gradient;
  const int64_t num_tokens = hidden_MC.size(0), vocab = head.rows();
  const auto labels = tensor_of(labels_M, hidden_MC).to(at::kLong).unsqueeze(1), known = labels.ge(0).logical_and(labels.lt(vocab)), places = at::where(known, labels, at::zeros_like(labels));
  const int64_t block = rows_of_block(num_tokens, 2 * 4 * vocab, buffer_bytes);
  std::vector<float> shares;
  for (int64_t first = 0; first < num_tokens; first += block) {
    const int64_t count = std::min(block, num_tokens - first);
    const auto places_B1 = places.narrow(0, first, count), known_B1 = known.narrow(0, first, count);
    auto logits_BV = at::empty({count, vocab}, hidden_MC.options().dtype(at::kFloat));
    head_product(hidden_MC.narrow(0, first, count), head, logits_BV);
    if (head.softcap() > 0) logits_BV.div_(head.softcap()).tanh_().mul_(head.softcap());
    const auto p_BV = logits_BV.softmax(1);
    const auto of_label_B1 = at::where(known_B1, p_BV.gather(1, places_B1), at::zeros({}, p_BV.options()));   // the teacher may lack the token
    const auto largest_B1 = p_BV.amax(1, true);
    const auto raised_B1 = ((1 - of_label_B1 - threshold) / (1 - of_label_B1).clamp_min(1e-7)).clamp_min(0);
    const auto share_B1 = at::where(of_label_B1 < largest_B1, (1 - threshold) / (1 - of_label_B1 + largest_B1), raised_B1);
    for (const float share : values_of<float>(share_B1)) shares.push_back(share);
  }
  for (size_t m = 0; m < shares.size(); ++m) {
    if (labels_M[m] == kUnsupervised) shares[m] = 1;
  }
  return shares;
}

SignalRows rest_to_labels(const SignalRows& rows, std::span<const int32_t> labels_M) {
  SignalRows moved;
  moved.num_entries = rows.num_entries + 1;   // the label may not be among a token's entries
  moved.tail_mass_M = rows.tail_mass_M;
  const auto num_entries = static_cast<size_t>(rows.num_entries);
  for (size_t m = 0; m < labels_M.size(); ++m) {
    const auto begin = static_cast<int64_t>(m * num_entries), end = begin + rows.num_entries;
    moved.ids_MK.insert(moved.ids_MK.end(), rows.ids_MK.begin() + begin, rows.ids_MK.begin() + end);
    moved.log_probabilities_MK.insert(moved.log_probabilities_MK.end(), rows.log_probabilities_MK.begin() + begin, rows.log_probabilities_MK.begin() + end);
    moved.ids_MK.push_back(-1);
    moved.log_probabilities_MK.push_back(0);
    auto& rest = moved.tail_mass_M[m];
    if (labels_M[m] == kUnsupervised || rest <= 0) continue;
    const auto ids = std::span(moved.ids_MK).last(num_entries + 1);
    const auto log_probabilities = std::span(moved.log_probabilities_MK).last(num_entries + 1);
    const auto place = static_cast<size_t>(std::find(ids.begin(), ids.end() - 1, labels_M[m]) - ids.begin());
    const double before = ids[place] < 0 ? 0 : std::exp(static_cast<double>(log_probabilities[place]));
    ids[place] = labels_M[m];
    log_probabilities[place] = static_cast<float>(std::log(before + rest));
    rest = 0;
  }
  return moved;
}

SignalRows rest_to_labels(const SignalRows& rows, const Batch& batch) {
  std::vector<int32_t> labels_M;
  for (const auto token : batch.taught_tokens()) labels_M.push_back(batch.labels_N[static_cast<size_t>(token)]);
  return rest_to_labels(rows, labels_M);
}

}  // namespace graft
