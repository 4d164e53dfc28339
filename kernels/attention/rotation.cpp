#include "kernels/attention/rotation.h"

#include <ATen/ATen.h>

namespace graft {

at::Tensor rows_at(const at::Tensor& table, std::span<const int32_t> positions, const at::Tensor& like) {
  auto position_N = at::empty({static_cast<int64_t>(positions.size())}, at::kLong);
  std::copy(positions.begin(), positions.end(), position_N.data_ptr<int64_t>());
  return table.index_select(0, position_N.to(like.device())).to(like.scalar_type());
}

at::Tensor rotated(const at::Tensor& x_NHD, const at::Tensor& cosine_NE, const at::Tensor& sine_NE, bool neighbouring_pairs) {
  const int64_t turning = 2 * cosine_NE.size(1);
  const auto cosine = cosine_NE.unsqueeze(1), sine = sine_NE.unsqueeze(1);
  const auto head = x_NHD.narrow(-1, 0, turning), rest = x_NHD.narrow(-1, turning, x_NHD.size(-1) - turning);
  const auto paired = neighbouring_pairs ? head.unflatten(-1, {-1, 2}).transpose(-1, -2) : head.unflatten(-1, {2, -1});   // [.., 2, E]
  const auto a = paired.select(-2, 0), b = paired.select(-2, 1);
  auto turned = at::stack({a * cosine - b * sine, b * cosine + a * sine}, -2);
  if (neighbouring_pairs) turned = turned.transpose(-1, -2);
  return at::cat({turned.flatten(-2), rest}, -1);
}

}  // namespace graft
