#include "trainer/distillation/hidden_matching.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

#include "kernels/common/error.h"
#include "trainer/generation/sampling.h"

namespace graft {
namespace {

// [teacher, student] with orthonormal columns (rows, where there are more columns): the first cosines of the transform DCT-II, with the channels' signs drawn.
at::Tensor orthogonal(int64_t rows, int64_t columns, uint64_t seed, uint64_t pair) {
  const int64_t length = std::max(rows, columns), count = std::min(rows, columns);
  auto basis = at::empty({length, count}, at::kFloat);
  for (int64_t l = 0; l < length; ++l) {
    const double sign = counter_uniform(seed, pair, static_cast<uint64_t>(l)) < 0.5 ? -1 : 1;
    for (int64_t c = 0; c < count; ++c) {
      const double scale = std::sqrt((c == 0 ? 1.0 : 2.0) / static_cast<double>(length));
      basis.data_ptr<float>()[l * count + c] = static_cast<float>(sign * scale * std::cos(M_PI * static_cast<double>((2 * l + 1) * c) / static_cast<double>(2 * length)));
    }
  }
  return rows >= columns ? basis : basis.t().contiguous();
}

at::Tensor places(int64_t rows, std::span<const int64_t> kept_channels) {
  auto projection = at::zeros({rows, static_cast<int64_t>(kept_channels.size())}, at::kFloat);
  for (size_t c = 0; c < kept_channels.size(); ++c) projection[kept_channels[c]][static_cast<int64_t>(c)] = 1;
  return projection;
}

}  // namespace

HiddenMatching::HiddenMatching(const ObjectiveOptions& options, const DecoderSpec& student, const DecoderSpec& teacher, AdapterSet& adapters, uint64_t seed,
                               std::span<const int64_t> kept_channels)
    : adapters_(adapters), weight_(options.hidden_states_weight), width_(student.hidden_size), teacher_width_(teacher.hidden_size) {
  const auto ours = static_cast<int64_t>(student.layers.size()), theirs = static_cast<int64_t>(teacher.layers.size());
  auto pairs = options.hidden_states_layers;
  for (int64_t layer = 0; layer < ours && options.hidden_states_layers.empty(); ++layer) {
    pairs.emplace_back(layer, std::max<int64_t>(0, (2 * (layer + 1) * theirs + ours) / (2 * ours) - 1));   // round((layer + 1) theirs / ours) - 1
  }
  for (const auto& [mine, other] : pairs) {
    if (mine < ours && other < theirs) continue;
    fail("recipe", "expected objective.hidden_states.layers to name layers from 0 to {} of the student and from 0 to {} of the teacher, got [{}, {}] — take layers that they have, or even",
         ours - 1, theirs - 1, mine, other);
  }
  for (const auto& [mine, other] : pairs) student_layers_.push_back(mine), teacher_layers_.push_back(other);
  if (!projects()) return;
  begins_as_cut_ = static_cast<int64_t>(kept_channels.size()) == width_ && std::all_of(kept_channels.begin(), kept_channels.end(), [&](int64_t c) { return c >= 0 && c < teacher_width_; });
  std::vector<at::Tensor> projections;
  for (size_t pair = 0; pair < pairs.size(); ++pair) projections.push_back((begins_as_cut_ ? places(teacher_width_, kept_channels) : orthogonal(teacher_width_, width_, seed, pair)).reshape(-1));
  offset_ = adapters_.append(at::cat(projections));
}

bool HiddenMatching::has_pair(int64_t student_layer) const { return std::find(student_layers_.begin(), student_layers_.end(), student_layer) != student_layers_.end(); }

at::Tensor HiddenMatching::projection(size_t pair) const {
  if (!projects()) return {};
  const int64_t size = teacher_width_ * width_;
  return adapters_.parameters.narrow(0, offset_ + static_cast<int64_t>(pair) * size, size).view({teacher_width_, width_});
}

HiddenMatching::Loss HiddenMatching::loss(int64_t student_layer, const at::Tensor& student_MC, std::span<const at::Tensor> teacher_MD, std::span<const float> weights_M,
                                          std::optional<double> gradient_scale) const {
  Loss loss;
  const auto h_MC = student_MC.to(at::kFloat);
  at::Tensor gradient_MC;
  for (size_t pair = 0; pair < student_layers_.size(); ++pair) {
    if (student_layers_[pair] != student_layer) continue;
    const auto t_MD = teacher_MD[pair].to(at::kFloat), projection_DC = projection(pair);
    const auto error_MD = (projects() ? at::matmul(h_MC, projection_DC.t()) : h_MC) - t_MD;
    auto share_M1 = 1 / (t_MD.square().sum(1, /*keepdim=*/true) * static_cast<double>(student_layers_.size()));
    if (!weights_M.empty()) share_M1 = share_M1 * at::tensor(at::ArrayRef<float>(weights_M.data(), weights_M.size()), at::kFloat).to(t_MD.device()).unsqueeze(1);
    loss.weighted += (error_MD.square().sum(1, /*keepdim=*/true) * share_M1).sum(at::kDouble).item<double>();
    if (!gradient_scale) continue;
    const auto slope_MD = error_MD * (share_M1 * (2 * *gradient_scale));
    if (projects()) {
      const int64_t size = teacher_width_ * width_;
      adapters_.gradients.narrow(0, offset_ + static_cast<int64_t>(pair) * size, size).add_(at::matmul(slope_MD.t(), h_MC).reshape(-1));
    }
    const auto back_MC = projects() ? at::matmul(slope_MD, projection_DC) : slope_MD;
    gradient_MC = gradient_MC.defined() ? gradient_MC + back_MC : back_MC;
  }
  if (gradient_MC.defined()) loss.gradient_MC = gradient_MC.to(student_MC.scalar_type());
  return loss;
}

int64_t HiddenMatching::num_bytes(int64_t tokens) const {
  const auto pairs = static_cast<int64_t>(student_layers_.size());
  return tokens * 4 * (pairs * (width_ + teacher_width_) + 4 * teacher_width_ + 2 * width_);
}

std::string HiddenMatching::describe() const {
  std::string pairs;
  for (size_t pair = 0; pair < student_layers_.size(); ++pair) pairs += fmt::format("{}{}-{}", pair == 0 ? "" : " ", student_layers_[pair], teacher_layers_[pair]);
  const auto through = projects() ? fmt::format("each through a W [{}, {}]{}, {:.2f} M values in all that are trained beside the adapters and go into no export", teacher_width_, width_,
                                                begins_as_cut_ ? ", which begins with the channels' places in the model that the student was cut from" : "", static_cast<double>(num_parameters()) / 1e6)
                                  : fmt::format("both {} wide: without W", width_);
  return fmt::format("hidden states: the student's layers to the teacher's, from 0: {}; {}", pairs, through);
}

}  // namespace graft
