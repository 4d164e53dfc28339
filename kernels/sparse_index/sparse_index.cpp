#include "kernels/sparse_index/sparse_index.h"

#include <ATen/ATen.h>

#include "kernels/attention/key_bits.h"

namespace graft {
namespace {

constexpr int64_t kScoreElements = int64_t{1} << 26;   // of all heads of a block of queries

}  // namespace

at::Tensor sparse_index_reference(const at::Tensor& q_MHD, const at::Tensor& k_TD, const at::Tensor& weights_MH, int64_t count) {
  const int64_t queries = q_MHD.size(0), heads = q_MHD.size(1), keys = k_TD.size(0);
  const int64_t block = std::max<int64_t>(1, kScoreElements / std::max<int64_t>(1, heads * keys));
  std::vector<at::Tensor> rows;
  for (int64_t first = 0; first < queries; first += block) {
    const int64_t size = std::min(block, queries - first);
    const auto scores_BHT = at::relu(at::matmul(q_MHD.narrow(0, first, size), k_TD.t()));
    const auto score_BT = at::matmul(weights_MH.narrow(0, first, size).unsqueeze(1), scores_BHT).squeeze(1);
    const auto future = at::ones({size, keys}, score_BT.options().dtype(at::kBool)).triu(keys - queries + first + 1);
    const auto best = std::get<1>(score_BT.nan_to_num(-INFINITY).masked_fill(future, -INFINITY).topk(std::min(count, keys), -1));
    rows.push_back(pack_keys(at::zeros_like(future).scatter(1, best, true).logical_and(future.logical_not())));
  }
  return rows.empty() ? at::empty({0, key_bytes(keys)}, k_TD.options().dtype(at::kByte)) : at::cat(rows);
}

}  // namespace graft
