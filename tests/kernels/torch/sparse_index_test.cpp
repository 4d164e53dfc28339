#include "kernels/sparse_index/sparse_index.h"

#include <set>

#include <ATen/Parallel.h>

#include "kernels/attention/key_bits.h"
#include "kernels/common/operator_path.h"
#include "tests/kernels/torch/operators.h"

namespace graft {
namespace {

using testing::random_tensor;

struct Setup {
  int64_t queries, keys, heads, size, count;
};

struct Inputs {
  at::Tensor q_MHD, k_TD, weights_MH;
};

Inputs make_inputs(const Setup& setup) {
  return {random_tensor({setup.queries, setup.heads, setup.size}, 1), random_tensor({setup.keys, setup.size}, 2), random_tensor({setup.queries, setup.heads}, 3)};
}

// By the formula, in double, one query and key at a time.
std::set<int64_t> selected(const Inputs& inputs, int64_t query, int64_t visible, int64_t count) {
  std::vector<std::pair<double, int64_t>> scores;
  for (int64_t t = 0; t < visible; ++t) {
    double score = 0;
    for (int64_t h = 0; h < inputs.q_MHD.size(1); ++h) {
      const double product = inputs.q_MHD[query][h].to(at::kDouble).dot(inputs.k_TD[t].to(at::kDouble)).item<double>();
      score += inputs.weights_MH[query][h].item<double>() * std::max(0.0, product);
    }
    scores.push_back({-score, t});
  }
  std::sort(scores.begin(), scores.end());
  std::set<int64_t> keys;
  for (int64_t i = 0; i < std::min(count, visible); ++i) keys.insert(scores[static_cast<size_t>(i)].second);
  return keys;
}

class SparseIndex : public ::testing::TestWithParam<Setup> {};

TEST_P(SparseIndex, EqualsTheFormulaAndTheSpecification) {
  const auto& setup = GetParam();
  const auto inputs = make_inputs(setup);
  const auto bits = sparse_index(inputs.q_MHD, inputs.k_TD, inputs.weights_MH, setup.count);
  ASSERT_EQ(bits.sizes(), (std::vector<int64_t>{setup.queries, key_bytes(setup.keys)}));
  EXPECT_TRUE(at::equal(bits, sparse_index_reference(inputs.q_MHD.to(at::kDouble), inputs.k_TD.to(at::kDouble), inputs.weights_MH.to(at::kDouble), setup.count)));
  for (const int64_t m : {int64_t{0}, setup.queries / 2, setup.queries - 1}) {
    std::set<int64_t> keys;
    for (int64_t t = 0; t < key_bytes(setup.keys) * 8; ++t) {
      if (has_key(bits.const_data_ptr<uint8_t>() + m * bits.size(1), t)) keys.insert(t);
    }
    EXPECT_EQ(keys, selected(inputs, m, setup.keys - setup.queries + m + 1, setup.count)) << "query " << m;
  }
  set_operator_path(OperatorPath::kReference);
  EXPECT_TRUE(at::equal(bits, sparse_index(inputs.q_MHD, inputs.k_TD, inputs.weights_MH, setup.count)));
  set_operator_path(OperatorPath::kFast);
}

// Few heads give many scores of zero; nine are enough that none meet at the border.
INSTANTIATE_TEST_SUITE_P(Shapes, SparseIndex,
                         ::testing::Values(Setup{1, 1, 9, 4, 3}, Setup{6, 6, 9, 5, 2}, Setup{13, 40, 10, 7, 9}, Setup{7, 300, 12, 16, 41}, Setup{5, 600, 9, 8, 599},
                                           Setup{9, 17, 9, 6, 100}));

TEST(SparseIndexOrder, EqualScoresSelectTheEarlierKeyAndANanComesLast) {
  const auto q = at::ones({1, 1, 1}), weights = at::ones({1, 1});
  const auto keys_of = [&](std::vector<float> keys) {
    const auto bits = sparse_index(q, at::tensor(keys).view({-1, 1}), weights, 2);
    return static_cast<int>(bits.item<uint8_t>());
  };
  EXPECT_EQ(keys_of({-1, 2, 2, 2, -3}), 0b00110);
  EXPECT_EQ(keys_of({NAN, 1, -2, -2}), 0b0110);
}

TEST(SparseIndexThreads, ChangeNoBit) {
  const auto inputs = make_inputs({50, 700, 16, 32, 100});
  const int before = at::get_num_threads();
  const auto bits = sparse_index(inputs.q_MHD, inputs.k_TD, inputs.weights_MH, 100);
  at::set_num_threads(1);
  EXPECT_TRUE(at::equal(bits, sparse_index(inputs.q_MHD, inputs.k_TD, inputs.weights_MH, 100)));
  at::set_num_threads(before);
}

TEST(SparseIndexErrors, NamesWhatIsWrong) {
  const auto inputs = make_inputs({5, 4, 2, 3, 2});
  EXPECT_THROW(sparse_index(inputs.q_MHD, inputs.k_TD, inputs.weights_MH, 2), std::runtime_error);   // more queries than keys
  const auto more = make_inputs({3, 4, 2, 3, 2});
  EXPECT_THROW(sparse_index(more.q_MHD, more.k_TD, more.weights_MH, 0), std::runtime_error);
  EXPECT_THROW(sparse_index(more.q_MHD, more.k_TD, inputs.weights_MH, 2), std::runtime_error);
}

}  // namespace
}  // namespace graft
