// The CPU path: a few queries at a time against blocks of keys, all heads in one product, so that no score of a single head leaves the cache.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

#include "kernels/attention/key_bits.h"
#include "kernels/common/error.h"
#include "kernels/common/operator_path.h"
#include "kernels/matrix_product/matrix_product.h"
#include "kernels/scratch/scratch.h"
#include "kernels/sparse_index/sparse_index.h"

namespace graft {
namespace {

constexpr int64_t kQueryBlock = 4, kKeyBlock = 256;

void check(const at::Tensor& q_MHD, const at::Tensor& k_TD, const at::Tensor& weights_MH, int64_t count) {
  const bool shapes = q_MHD.dim() == 3 && k_TD.dim() == 2 && weights_MH.dim() == 2 && q_MHD.size(2) == k_TD.size(1) && q_MHD.size(0) <= k_TD.size(0) &&
                      weights_MH.size(0) == q_MHD.size(0) && weights_MH.size(1) == q_MHD.size(1);
  if (!shapes || count < 1) {
    fail("kernels", "sparse index: expected q [M, H, D], k [T, D] with T from M on, weights [M, H] and a count from 1 on, got {}, {}, {} and {}",
         c10::str(q_MHD.sizes()), c10::str(k_TD.sizes()), c10::str(weights_MH.sizes()), count);
  }
}

// scores[b * keys + t] of `queries` queries, which see at most `keys` keys.
void score(int64_t queries, int64_t heads, int64_t size, int64_t keys, const float* q, const float* k, const float* weights, float* scores) {
  Scratch scratch;
  float* products = scratch.floats(queries * heads * kKeyBlock);
  for (int64_t begin = 0; begin < keys; begin += kKeyBlock) {
    const int64_t block = std::min(kKeyBlock, keys - begin);
    matrix_product(queries * heads, block, size, {q, size}, {k + begin * size, size, true}, products, block);
    for (int64_t b = 0; b < queries; ++b) {
      float* sums = scores + b * keys + begin;
      std::fill_n(sums, block, 0.0f);
      for (int64_t h = 0; h < heads; ++h) {
        const float* row = products + (b * heads + h) * block;
        const float weight = weights[b * heads + h];
        for (int64_t t = 0; t < block; ++t) sums[t] += weight * (row[t] < 0 ? 0 : row[t]);   // a NaN stays one
      }
    }
  }
}

void select(float* scores, int64_t visible, int64_t count, std::vector<int64_t>& order, uint8_t* bits) {
  order.resize(static_cast<size_t>(visible));
  std::iota(order.begin(), order.end(), 0);
  if (visible > count) {
    std::replace_if(scores, scores + visible, [](float score) { return std::isnan(score); }, -INFINITY);   // an order needs numbers
    const auto better = [&](int64_t a, int64_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; };
    std::nth_element(order.begin(), order.begin() + count, order.end(), better);
    order.resize(static_cast<size_t>(count));
  }
  for (const auto key : order) bits[key / 8] = static_cast<uint8_t>(bits[key / 8] | 1 << key % 8);
}

}  // namespace

at::Tensor sparse_index(const at::Tensor& q_MHD, const at::Tensor& k_TD, const at::Tensor& weights_MH, int64_t count) {
  check(q_MHD, k_TD, weights_MH, count);
  if (!takes_fast_path(q_MHD)) return sparse_index_reference(q_MHD, k_TD, weights_MH, count);
  const int64_t queries = q_MHD.size(0), heads = q_MHD.size(1), size = q_MHD.size(2), keys = k_TD.size(0);
  const auto q = q_MHD.contiguous(), k = k_TD.contiguous(), weights = weights_MH.contiguous();
  auto bits = at::zeros({queries, key_bytes(keys)}, at::kByte);
  const float *q_data = q.const_data_ptr<float>(), *k_data = k.const_data_ptr<float>(), *weight_data = weights.const_data_ptr<float>();
  const int64_t blocks = (queries + kQueryBlock - 1) / kQueryBlock;
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    std::vector<int64_t> order;
    std::vector<float> scores(static_cast<size_t>(kQueryBlock * keys));
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kQueryBlock, number = std::min(kQueryBlock, queries - first), seen = keys - queries + first + number;
      score(number, heads, size, seen, q_data + first * heads * size, k_data, weight_data + first * heads, scores.data());
      for (int64_t b = 0; b < number; ++b) {
        select(scores.data() + b * seen, seen - number + b + 1, count, order, bits.data_ptr<uint8_t>() + (first + b) * bits.size(1));
      }
    }
  });
  return bits;
}

}  // namespace graft
