#include <torch/csrc/autograd/autograd.h>

#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/rms_norm/rms_norm.h"
#include "tests/kernels/torch/operators.h"

namespace graft {
namespace {

using testing::frozen;
using testing::leaf;
using testing::random_tensor;
using testing::relative_error;

TEST(RmsNorm, EqualsTheSpecification) {
  for (const int64_t width : {1, 7, 64, 577}) {
    const auto x = leaf(random_tensor({13, width}, 1)), weight = random_tensor({width}, 2), gradient = random_tensor({13, width}, 3);
    const auto ours = rms_norm(x, weight, 1e-3), expected = rms_norm_reference(x, weight, 1e-3);
    EXPECT_LT(relative_error(ours, expected), 2e-6) << width;
    EXPECT_LT(relative_error(torch::autograd::grad({ours}, {x}, {gradient})[0], torch::autograd::grad({expected}, {x}, {gradient})[0]), 5e-6) << width;
  }
}

TEST(RmsNorm, RefusesOtherTypes) {
  EXPECT_THROW(rms_norm(at::zeros({2, 3}, at::kHalf), at::zeros({3}), 1e-5), std::runtime_error);
  EXPECT_THROW(rms_norm(at::zeros({2, 3}), at::zeros({4}), 1e-5), std::runtime_error);
}

struct Loss {
  at::Tensor loss, gradient;
};

Loss reference_loss(const at::Tensor& hidden, const at::Tensor& head, const std::vector<int32_t>& labels, const std::vector<float>& weights, double scale, double softcap) {
  const auto x = leaf(hidden.to(at::kDouble));
  auto labels_M = at::empty({static_cast<int64_t>(labels.size())}, at::kLong);
  auto weights_M = at::ones({static_cast<int64_t>(labels.size())}, at::kDouble);
  for (size_t i = 0; i < labels.size(); ++i) {
    labels_M[i] = static_cast<int64_t>(labels[i]);
    if (!weights.empty()) weights_M[i] = weights[i];
  }
  auto logits = at::matmul(x, head.to(at::kDouble).t());
  if (softcap > 0) logits = softcap * at::tanh(logits / softcap);
  const auto losses = at::cross_entropy_loss(logits, labels_M, {}, at::Reduction::None);
  const auto sum = (losses * weights_M).sum();
  return {sum, torch::autograd::grad({sum * scale}, {x})[0]};
}

TEST(LinearCrossEntropy, EqualsTheFormulaInDouble) {
  const auto hidden = random_tensor({29, 12}, 1), head = random_tensor({1000, 12}, 2);
  std::vector<int32_t> labels;
  std::vector<float> weights;
  for (int32_t i = 0; i < 29; ++i) {
    labels.push_back(i * 37 % 1000);
    weights.push_back(0.5f + 0.1f * static_cast<float>(i % 4));
  }
  for (const auto& [weighted, softcap] : {std::pair{false, 0.0}, std::pair{true, 0.0}, std::pair{true, 3.0}}) {
    for (const int64_t buffer : {int64_t{4000}, int64_t{1} << 20}) {   // one row a block, all in one
      CrossEntropyOptions options;
      options.gradient_scale = 1.0 / 29;
      options.buffer_bytes = buffer;
      const auto weight = frozen(head);
      const auto ours = linear_cross_entropy(hidden, LinearHead(weight, softcap), labels, weighted ? weights : std::vector<float>(), options);
      const auto expected = reference_loss(hidden, head, labels, weighted ? weights : std::vector<float>(), 1.0 / 29, softcap);
      EXPECT_NEAR(ours.weighted_loss / expected.loss.item<double>(), 1, 1e-6);
      EXPECT_LT(relative_error(ours.gradient_MC, expected.gradient), 2e-6);
    }
  }
}

// A head in pieces of 256 and 512 rows, as a sharded base brings it.
class Pieces : public HeadPieces {
 public:
  explicit Pieces(const at::Tensor& head) : rows_(head.size(0)), columns_(head.size(1)) {
    for (int64_t first = 0, count = 256; first < rows_; first += count, count = 512) pieces_.push_back(frozen(head.narrow(0, first, std::min(count, rows_ - first)).contiguous()));
  }
  int64_t rows() const override { return rows_; }
  int64_t columns() const override { return columns_; }
  int64_t num_pieces() const override { return static_cast<int64_t>(pieces_.size()); }
  const FrozenWeight& piece(int64_t index) const override { return pieces_.at(static_cast<size_t>(index)); }

 private:
  int64_t rows_, columns_;
  std::vector<FrozenWeight> pieces_;
};

TEST(LinearCrossEntropy, AHeadInPiecesHasTheSameBits) {
  const auto hidden = random_tensor({29, 12}, 1), head = random_tensor({1500, 12}, 2);
  std::vector<int32_t> labels;
  for (int32_t i = 0; i < 29; ++i) labels.push_back(i * 37 % 1500);
  const Pieces pieces(head);
  ASSERT_EQ(pieces.num_pieces(), 4);
  for (const int64_t buffer : {int64_t{30000}, int64_t{1} << 20}) {
    CrossEntropyOptions options;
    options.buffer_bytes = buffer;
    const auto whole = linear_cross_entropy(hidden, frozen(head), labels, {}, options), ours = linear_cross_entropy(hidden, pieces, labels, {}, options);
    EXPECT_EQ(ours.losses_M, whole.losses_M);
    EXPECT_TRUE(at::equal(ours.gradient_MC, whole.gradient_MC));
  }
}

TEST(LinearCrossEntropy, RefusesLabelsOutsideTheVocabulary) {
  const auto head = frozen(at::zeros({10, 4}));
  EXPECT_THROW(linear_cross_entropy(at::zeros({1, 4}), head, std::vector<int32_t>{10}, {}), std::runtime_error);
  EXPECT_THROW(linear_cross_entropy(at::zeros({1, 4}), head, std::vector<int32_t>{-100}, {}), std::runtime_error);
  EXPECT_THROW(linear_cross_entropy(at::zeros({2, 4}), head, std::vector<int32_t>{1}, {}), std::runtime_error);
}

}  // namespace
}  // namespace graft
