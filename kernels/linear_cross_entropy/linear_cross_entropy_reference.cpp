// The specification in plain ATen; what GPUs run.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "kernels/elementwise/typed_rows.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace graft {
namespace {

// a b in the wide type: a GPU multiplies bfloat16 and keeps its float32 sums; the CPU has no such product and multiplies wide copies.
at::Tensor wide_product(const at::Tensor& a, const at::Tensor& b) {
  const auto wide = wide_type(a.scalar_type());
  if (a.scalar_type() != wide && a.is_cuda()) return at::mm(a, b, wide);
  return at::mm(a.to(wide), b.to(wide));
}

template <typename T>
at::Tensor on_device(std::span<const T> values, at::ScalarType type, c10::Device device) {
  auto tensor = at::empty({static_cast<int64_t>(values.size())}, type);
  if (type == at::kLong) std::copy(values.begin(), values.end(), tensor.template data_ptr<int64_t>());
  else std::copy(values.begin(), values.end(), tensor.template data_ptr<float>());
  return tensor.to(device);
}

// Calls f(first row of the head, rows, the piece [rows, C] where x lies and in its type) in order. A piece is gone when the next one comes.
template <typename Function>
void for_pieces(const HeadPieces& head, const at::Tensor& x, const Function& f) {
  int64_t first = 0;
  for (int64_t index = 0; index < head.num_pieces(); ++index) {
    const auto& piece = head.piece(index);
    f(first, piece.rows(), piece.matrix(x.scalar_type(), x.device()));
    first += piece.rows();
  }
}

at::Tensor logits_of(const at::Tensor& hidden_BC, const HeadPieces& head) {
  std::vector<at::Tensor> parts;
  for_pieces(head, hidden_BC, [&](int64_t, int64_t, const at::Tensor& head_PC) { parts.push_back(wide_product(hidden_BC, head_PC.t())); });
  return parts.size() == 1 ? parts[0] : at::cat(parts, 1);
}

// Of hidden, in the wide type where several pieces are summed.
at::Tensor hidden_gradient(const at::Tensor& gradient_BV, const at::Tensor& hidden_BC, const HeadPieces& head) {
  at::Tensor sum;
  for_pieces(head, hidden_BC, [&](int64_t first, int64_t count, const at::Tensor& head_PC) {
    const auto part = at::mm(gradient_BV.narrow(1, first, count).to(hidden_BC.scalar_type()), head_PC);
    sum = sum.defined() ? sum.to(gradient_BV.scalar_type()) + part : part;
  });
  return sum;
}

}  // namespace

CrossEntropyResult linear_cross_entropy_reference(const at::Tensor& hidden_MC, const LinearHead& head, std::span<const int32_t> labels,
                                                  std::span<const float> weights, const CrossEntropyOptions& options) {
  return linear_cross_entropy_reference(hidden_MC, WholeHead(head), labels, weights, options);
}

CrossEntropyResult linear_cross_entropy_reference(const at::Tensor& hidden_MC, const HeadPieces& head, std::span<const int32_t> labels,
                                                  std::span<const float> weights, const CrossEntropyOptions& options) {
  const at::NoGradGuard no_gradient;
  const int64_t num_rows = hidden_MC.size(0);
  const auto wide = wide_type(hidden_MC.scalar_type());
  const auto labels_M1 = on_device(labels, at::kLong, hidden_MC.device()).unsqueeze(1);
  auto losses_M = at::empty({num_rows}, hidden_MC.options().dtype(wide)), correct_M = at::empty({num_rows}, hidden_MC.options().dtype(at::kByte));
  auto scales_M = at::full({num_rows}, options.gradient_scale, losses_M.options());
  if (!weights.empty()) scales_M.mul_(on_device(weights, at::kFloat, hidden_MC.device()));
  CrossEntropyResult result;
  if (options.want_gradient) result.gradient_MC = at::empty_like(hidden_MC);
  const int64_t row_bytes = head.rows() * static_cast<int64_t>(c10::elementSize(wide));
  const int64_t block = std::clamp<int64_t>(options.buffer_bytes / row_bytes, 1, std::max<int64_t>(num_rows, 1));
  for (int64_t first = 0; first < num_rows; first += block) {
    const int64_t count = std::min(block, num_rows - first);
    const auto rows_of = [&](const at::Tensor& x) { return x.narrow(0, first, count); };
    auto logits_BV = logits_of(rows_of(hidden_MC), head);
    at::Tensor slope_BV;   // of the softcap
    if (head.softcap() > 0) {
      logits_BV.div_(head.softcap()).tanh_();
      if (options.want_gradient) slope_BV = 1 - logits_BV.square();
      logits_BV.mul_(head.softcap());
    }
    const auto maximum_B1 = logits_BV.amax(-1, true), at_label_B1 = logits_BV.gather(1, rows_of(labels_M1));
    logits_BV.sub_(maximum_B1).exp_();   // softmax and gradient overwrite the logits
    const auto sum_B1 = logits_BV.sum(-1, true);
    rows_of(losses_M).copy_((maximum_B1 + sum_B1.log() - at_label_B1).squeeze(1));
    rows_of(correct_M).copy_(at::ge(at_label_B1, maximum_B1).squeeze(1));
    if (!options.want_gradient) continue;
    const auto scale_B1 = rows_of(scales_M).unsqueeze(1);
    logits_BV.mul_(scale_B1 / sum_B1);
    logits_BV.scatter_(1, rows_of(labels_M1), logits_BV.gather(1, rows_of(labels_M1)) - scale_B1);
    if (slope_BV.defined()) logits_BV.mul_(slope_BV);
    rows_of(result.gradient_MC).copy_(hidden_gradient(logits_BV, rows_of(hidden_MC), head));
  }
  losses_M = losses_M.to(at::kCPU, at::kFloat);
  correct_M = correct_M.cpu();
  result.losses_M.assign(losses_M.const_data_ptr<float>(), losses_M.const_data_ptr<float>() + num_rows);
  result.correct_M.assign(correct_M.const_data_ptr<uint8_t>(), correct_M.const_data_ptr<uint8_t>() + num_rows);
  for (int64_t i = 0; i < num_rows; ++i) result.weighted_loss += static_cast<double>(result.losses_M[i]) * (weights.empty() ? 1.0 : weights[i]);
  return result;
}

}  // namespace graft
