#include <torch/csrc/autograd/autograd.h>

#include "kernels/common/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "tests/kernels/torch/finite_differences.h"
#include "tests/kernels/torch/operators.h"

namespace graft {
namespace {

using testing::finite_differences;
using testing::frozen;
using testing::leaf;
using testing::random_tensor;

struct Loss {
  at::Tensor loss, gradient;
};

// LibTorch's own loss, in double.
Loss expected_loss(const at::Tensor& hidden, const at::Tensor& head, const std::vector<int32_t>& labels, const std::vector<float>& weights, double softcap, const CrossEntropyOptions& options) {
  const auto x = leaf(hidden.to(at::kDouble));
  auto labels_M = at::empty({static_cast<int64_t>(labels.size())}, at::kLong);
  auto weights_M = at::ones({static_cast<int64_t>(labels.size())}, at::kDouble);
  for (size_t i = 0; i < labels.size(); ++i) {
    labels_M[i] = static_cast<int64_t>(labels[i]);
    if (!weights.empty()) weights_M[i] = weights[i];
  }
  auto logits = at::matmul(x, head.to(at::kDouble).t());
  if (softcap > 0) logits = softcap * at::tanh(logits / softcap);
  const auto losses = at::cross_entropy_loss(logits, labels_M, {}, at::Reduction::None, -100, options.label_smoothing) + options.z_loss * logits.logsumexp(1).square();
  const auto sum = (losses * weights_M).sum();
  return {sum, torch::autograd::grad({sum * options.gradient_scale}, {x})[0]};
}

// Each option alone, and all.
struct Options {
  bool weighted;
  double softcap, z_loss, label_smoothing;
};
const std::vector<Options> kOptions = {{false, 0, 0, 0}, {true, 0, 0, 0}, {false, 3, 0, 0}, {false, 0, 0.01, 0}, {false, 0, 0, 0.1}, {true, 3, 0.01, 0.2}, {true, 0, 0.01, 1}};

struct Rows {
  at::Tensor hidden, head;
  std::vector<int32_t> labels;
  std::vector<float> weights;

  Rows(int32_t num_rows, int32_t vocab) : hidden(random_tensor({num_rows, 12}, 1)), head(random_tensor({vocab, 12}, 2)) {
    for (int32_t i = 0; i < num_rows; ++i) {
      labels.push_back(i * 37 % vocab);
      weights.push_back(0.5f + 0.1f * static_cast<float>(i % 4));
    }
  }
  std::vector<float> weights_of(const Options& c) const { return c.weighted ? weights : std::vector<float>(); }
};

CrossEntropyOptions options_of(const Options& c, double gradient_scale) {
  CrossEntropyOptions options;
  options.gradient_scale = gradient_scale;
  options.z_loss = c.z_loss;
  options.label_smoothing = c.label_smoothing;
  return options;
}

TEST(LinearCrossEntropy, EqualsTheFormulaInDouble) {
  const Rows rows(29, 1000);
  const auto weight = frozen(rows.head);
  for (const auto& c : kOptions) {
    SCOPED_TRACE(::testing::Message() << "weights " << c.weighted << ", softcap " << c.softcap << ", z-loss " << c.z_loss << ", smoothing " << c.label_smoothing);
    for (const int64_t buffer : {int64_t{4000}, int64_t{1} << 20}) {   // one row a block, all in one
      auto options = options_of(c, 1.0 / 29);
      options.buffer_bytes = buffer;
      const LinearHead head(weight, c.softcap);
      const auto ours = linear_cross_entropy(rows.hidden, head, rows.labels, rows.weights_of(c), options);
      const auto reference = linear_cross_entropy_reference(rows.hidden, head, rows.labels, rows.weights_of(c), options);
      const auto expected = expected_loss(rows.hidden, rows.head, rows.labels, rows.weights_of(c), c.softcap, options);
      EXPECT_NEAR(ours.weighted_loss / expected.loss.item<double>(), 1, 1e-6);
      EXPECT_NEAR(reference.weighted_loss / expected.loss.item<double>(), 1, 1e-6);
      EXPECT_LT(relative_error(ours.gradient_MC, expected.gradient), 3e-6);
      EXPECT_LT(relative_error(reference.gradient_MC, expected.gradient), 3e-6);
      EXPECT_EQ(ours.correct_M, reference.correct_M);
      for (size_t i = 0; i < ours.losses_M.size(); ++i) {
        EXPECT_NEAR(ours.log_sums_M[i], reference.log_sums_M[i], 1e-5);
        EXPECT_NEAR(ours.losses_M[i], reference.losses_M[i], 1e-5);
      }
    }
  }
}

TEST(LinearCrossEntropy, GradientsAreFiniteDifferences) {
  const Rows rows(3, 40);
  const auto weight = frozen(rows.head);
  const auto hidden = rows.hidden.to(at::kDouble) * 0.5;
  for (const auto& c : kOptions) {
    const auto loss_at = [&](const at::Tensor& x) { return linear_cross_entropy_reference(x, LinearHead(weight, c.softcap), rows.labels, rows.weights_of(c), options_of(c, 0.7)); };
    EXPECT_LT(relative_error(loss_at(hidden).gradient_MC, finite_differences(hidden, [&](const at::Tensor& x) { return 0.7 * loss_at(x).weighted_loss; })), 1e-8)
        << "weights " << c.weighted << ", softcap " << c.softcap << ", z-loss " << c.z_loss << ", smoothing " << c.label_smoothing;
  }
}

TEST(LinearCrossEntropy, NoRows) {
  const Rows rows(1, 40);
  const auto result = linear_cross_entropy(rows.hidden.narrow(0, 0, 0), frozen(rows.head), {}, {});
  EXPECT_EQ(result.weighted_loss, 0);
  EXPECT_EQ(result.gradient_MC.size(0), 0);
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

TEST(LinearCrossEntropy, RefusesOtherTypesSizesAndOptions) {
  const auto head = frozen(at::zeros({10, 4}));
  const std::vector<int32_t> labels = {1};
  EXPECT_THROW(linear_cross_entropy(at::zeros({1, 4}, at::kDouble), head, labels, {}), UserError);
  EXPECT_THROW(linear_cross_entropy(at::zeros({1, 5}), head, labels, {}), UserError);
  CrossEntropyOptions options;
  options.z_loss = -1;
  EXPECT_THROW(linear_cross_entropy(at::zeros({1, 4}), head, labels, {}, options), UserError);
  options.z_loss = 0;
  options.label_smoothing = 1.1;
  EXPECT_THROW(linear_cross_entropy(at::zeros({1, 4}), head, labels, {}, options), UserError);
}

TEST(LinearCrossEntropy, RefusesLabelsOutsideTheVocabulary) {
  const auto head = frozen(at::zeros({10, 4}));
  EXPECT_THROW(linear_cross_entropy(at::zeros({1, 4}), head, std::vector<int32_t>{10}, {}), std::runtime_error);
  EXPECT_THROW(linear_cross_entropy(at::zeros({1, 4}), head, std::vector<int32_t>{-100}, {}), std::runtime_error);
  EXPECT_THROW(linear_cross_entropy(at::zeros({2, 4}), head, std::vector<int32_t>{1}, {}), std::runtime_error);
}

}  // namespace
}  // namespace graft
