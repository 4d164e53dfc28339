// lora_linear over quantised weights that lie on the device as blocks: both ways to multiply, several parts of unequal forms, values and every gradient against
// the reference over the decoded weights.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels/common/error.h"
#include "kernels/lora_linear/lora_linear.h"
#include "kernels/quantized_product/quantized_product.h"
#include "tests/emulator/operators/kernels_under_test.h"
#include "tests/kernels/torch/operators.h"
#include "tests/kernels/torch/quantized_weights.h"

namespace graft {
namespace {

using at::Tensor;
using testing::leaf;
using testing::quantized_weight;
using testing::random_tensor;

struct Layer {
  std::vector<FrozenWeight> weights;
  std::vector<LinearPart> parts;
  std::vector<Tensor> leaves;

  Layer(int64_t num_rows, const std::vector<TensorType>& forms, at::ScalarType type, at::Device device) {
    leaves.push_back(leaf(random_tensor({num_rows, 256}, 1).to(device, type)));
    for (size_t i = 0; i < forms.size(); ++i) weights.push_back(quantized_weight(forms[i], 40 + 8 * static_cast<int64_t>(i), 256, 10 + i));
    for (size_t i = 0; i < forms.size(); ++i) {
      auto& part = parts.emplace_back();
      part.weight = &weights[i];
      leaves.push_back(part.lora_a_RC = leaf(random_tensor({4, 256}, 30 + i, 0.3).to(device)));
      leaves.push_back(part.lora_b_OR = leaf(random_tensor({weights[i].rows(), 4}, 40 + i, 0.3).to(device)));
      part.scale = 1.5;
    }
  }
  template <typename Function>
  std::vector<Tensor> run(const Function& function) {
    std::vector<Tensor> results = {function(leaves[0], LinearPrologue{}, parts, LoraDropout{})};
    const auto slope = random_tensor(results[0].sizes().vec(), 50).to(results[0].device(), results[0].scalar_type());
    for (auto& gradient : torch::autograd::grad({results[0]}, leaves, {slope})) results.push_back(gradient);
    return results;
  }
};

void compare(int64_t num_rows, const std::vector<TensorType>& forms, at::ScalarType type, bool fused) {
  Layer reference(num_rows, forms, at::kFloat, at::kCPU);
  const auto expected = reference.run(lora_linear_reference);
  const test::KernelsUnderTest under_test;
  Layer ours(num_rows, forms, type, under_test.device());
  for (auto& weight : ours.weights) weight.to_device(under_test.device(), type);
  const auto got = ours.run(lora_linear);
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_LE(relative_error(got[i].to(at::kCPU), expected[i]), type == at::kFloat ? under_test.float32(3e-6) : 2e-2) << (i == 0 ? "result" : "gradient ") << i;
  }
  EXPECT_EQ(under_test.plain_paths(), 0);
  if (under_test.launches("") < 0) return;
  EXPECT_EQ(under_test.launches("quantized_product<"), fused ? 2 * static_cast<int64_t>(forms.size()) : 0);
  EXPECT_EQ(under_test.launches("dequantize_matrix<"), fused ? 0 : 2 * static_cast<int64_t>(forms.size()));
}

const std::vector<TensorType> kSomeForms = {TensorType::kQ4_K, TensorType::kQ8_0, TensorType::kNF4};

TEST(LoraLinearOnBlocks, FewRowsAreMultipliedFromBlocks) {
  for (const auto type : {at::kFloat, at::kBFloat16}) compare(9, kSomeForms, type, true);
  compare(70, {TensorType::kMXFP4}, at::kBFloat16, true);
}

TEST(LoraLinearOnBlocks, ManyRowsReadDecodedScratch) {
  for (const auto type : {at::kFloat, at::kBFloat16}) compare(300, {TensorType::kQ6_K, TensorType::kI4_128Zero}, type, false);
}

TEST(QuantizedProduct, RefusesWhatDoesNotFitBeforeAnyLaunch) {
  const test::KernelsUnderTest under_test;
  auto weight = quantized_weight(TensorType::kQ4_0, 8, 64, 1);
  weight.to_device(under_test.device(), at::kFloat);
  const auto like = at::TensorOptions(at::kFloat).device(under_test.device());
  auto y = at::empty({3, 8}, like);
  const auto error_of = [&](const Tensor& x, Tensor out) {
    try {
      frozen_matmul(x, weight, out);
    } catch (const UserError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  using ::testing::HasSubstr;
  EXPECT_EQ(error_of(at::ones({3, 64}, like), y), "no error");
  const auto launched = under_test.launches("");
  EXPECT_THAT(error_of(at::ones({3, 63}, like), y), HasSubstr("quantized_product: expected x as Float [3, 64] on "));
  EXPECT_THAT(error_of(at::ones({64, 3}, like).t(), y), HasSubstr("with the elements of a row beside each other"));
  EXPECT_THAT(error_of(at::ones({3, 64}, like), at::empty({3, 9}, like)), HasSubstr("expected y as Float [3, 8]"));
  EXPECT_THAT(error_of(at::ones({3, 64}, like), at::empty({3, 8}, like.dtype(at::kHalf))), HasSubstr("got Half [3, 8]"));
  weight.hold(at::zeros({8, 35}, like.dtype(at::kByte)));
  EXPECT_THAT(error_of(at::ones({3, 64}, like), y), HasSubstr("expected 8 rows of 36 bytes of Q4_0 blocks, got [8, 35]: a block is cut"));
  EXPECT_EQ(under_test.launches(""), launched);
  EXPECT_THROW(FrozenWeight(TensorType::kI4_128, 2, 192, nullptr, nullptr), UserError) << "no whole number of groups";
}

TEST(QuantizedProduct, BlocksThatSomebodyElseBringsMayLieAnywhere) {
  const test::KernelsUnderTest under_test;
  auto weight = quantized_weight(TensorType::kQ4_0, 8, 64, 1);
  const auto like = at::TensorOptions(at::kFloat).device(under_test.device());
  const auto x = random_tensor({3, 64}, 2).to(under_test.device());
  auto y = at::empty({3, 8}, like), again = at::empty({3, 8}, like);
  weight.to_device(under_test.device(), at::kFloat);
  frozen_matmul(x, weight, y);
  auto elsewhere = at::zeros({8 * 36 + 1}, like.dtype(at::kByte));
  elsewhere.narrow(0, 1, 8 * 36).copy_(weight.device_copy().flatten());
  weight.hold(elsewhere.narrow(0, 1, 8 * 36).view({8, 36}));
  frozen_matmul(x, weight, again);
  EXPECT_TRUE(at::equal(y, again));
}

}  // namespace
}  // namespace graft
