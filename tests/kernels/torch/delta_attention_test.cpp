#include "kernels/delta_attention/delta_attention.h"

#include <torch/csrc/autograd/autograd.h>

#include "kernels/common/error.h"
#include "tests/kernels/torch/operators.h"

namespace graft {
namespace {

using testing::leaf;
using testing::random_tensor;

struct DeltaSetup {
  int64_t num_key_heads, num_value_heads, key_size, value_size;
  std::vector<int32_t> lengths;
  bool channel_decay = false;
  DeltaAttentionOptions::Gate gate = DeltaAttentionOptions::Gate::kSilu;
  int64_t taps = 4;
  bool tiled = false;
};

struct Case {
  DeltaAttentionOptions options;
  DeltaAttentionInputs inputs;
  std::vector<int32_t> offsets{0};
  std::vector<at::Tensor> leaves() const { return {inputs.qkv_NC, inputs.a_NA, inputs.b_NH, inputs.z_NV}; }
};

Case make_case(const DeltaSetup& setup) {
  Case made;
  for (const auto length : setup.lengths) made.offsets.push_back(made.offsets.back() + length);
  auto& options = made.options;
  options.num_key_heads = setup.num_key_heads;
  options.num_value_heads = setup.num_value_heads;
  options.key_size = setup.key_size;
  options.value_size = setup.value_size;
  options.gate = setup.gate;
  options.tiled_value_heads = setup.tiled;
  options.norm_epsilon = 1e-3;
  const int64_t decays = setup.num_value_heads * (setup.channel_decay ? setup.key_size : 1), tokens = made.offsets.back();
  options.convolution_CK = random_tensor({options.channels(), setup.taps}, 1, 0.5);
  options.decay_rate_H = random_tensor({setup.num_value_heads}, 2).exp() * 0.3;
  options.decay_bias_A = random_tensor({decays}, 3);
  options.norm_weight_V = random_tensor({setup.value_size}, 4) + 1;
  made.inputs = {leaf(random_tensor({tokens, options.channels()}, 5)), leaf(random_tensor({tokens, decays}, 6)), leaf(random_tensor({tokens, setup.num_value_heads}, 7)),
                 leaf(random_tensor({tokens, setup.num_value_heads * setup.value_size}, 8))};
  return made;
}

// The specification in double precision, on the same values.
Case in_double(const Case& made) {
  Case wide = made;
  const auto widened = [](const at::Tensor& x) { return x.detach().to(at::kDouble).requires_grad_(true); };
  wide.inputs = {widened(made.inputs.qkv_NC), widened(made.inputs.a_NA), widened(made.inputs.b_NH), widened(made.inputs.z_NV)};
  return wide;
}

class DeltaAttention : public ::testing::TestWithParam<DeltaSetup> {};

TEST_P(DeltaAttention, EqualsTheSpecification) {
  const auto made = make_case(GetParam());
  const auto wide = in_double(made);
  const auto ours = delta_attention(made.inputs, made.options, made.offsets);
  const auto expected = delta_attention_reference(wide.inputs, wide.options, wide.offsets);
  EXPECT_LT(relative_error(ours, expected), 2e-6);
  const auto dout = random_tensor({ours.size(0), ours.size(1)}, 9);
  const auto gradients = torch::autograd::grad({ours}, made.leaves(), {dout});
  const auto expected_gradients = torch::autograd::grad({expected}, wide.leaves(), {dout.to(at::kDouble)});
  const char* names[] = {"qkv", "a", "b", "z"};
  for (size_t i = 0; i < gradients.size(); ++i) EXPECT_LT(relative_error(gradients[i], expected_gradients[i]), 1e-5) << names[i];
}

TEST_P(DeltaAttention, ADocumentDoesNotSeeTheOneBefore) {
  const auto made = make_case(GetParam());
  const auto whole = delta_attention(made.inputs, made.options, made.offsets);
  for (size_t d = 0; d + 1 < made.offsets.size(); ++d) {
    const int64_t begin = made.offsets[d], length = made.offsets[d + 1] - begin;
    const auto rows = [&](const at::Tensor& x) { return x.narrow(0, begin, length); };
    const std::vector<int32_t> offsets = {0, static_cast<int32_t>(length)};
    const auto alone = delta_attention({rows(made.inputs.qkv_NC), rows(made.inputs.a_NA), rows(made.inputs.b_NH), rows(made.inputs.z_NV)}, made.options, offsets);
    EXPECT_TRUE(at::equal(alone, rows(whole))) << "document " << d;
  }
}

TEST_P(DeltaAttention, OneTokenAtATimeEqualsOnePass) {
  const auto made = make_case(GetParam());
  const auto whole = delta_attention(made.inputs, made.options, made.offsets);
  for (size_t d = 0; d + 1 < made.offsets.size(); ++d) {
    DeltaState state;
    DeltaState* states[] = {&state};
    const int64_t begin = made.offsets[d], length = made.offsets[d + 1] - begin;
    for (int64_t done = 0; done < length;) {
      const int64_t count = done == 0 ? (length + 1) / 2 : 1;   // prefill, then token by token
      const auto rows = [&](const at::Tensor& x) { return x.detach().narrow(0, begin + done, count); };
      const std::vector<int32_t> offsets = {0, static_cast<int32_t>(count)};
      const auto part = cached_delta_attention({rows(made.inputs.qkv_NC), rows(made.inputs.a_NA), rows(made.inputs.b_NH), rows(made.inputs.z_NV)}, made.options, offsets, states);
      ASSERT_LT(relative_error(part, whole.narrow(0, begin + done, count)), 1e-5) << "document " << d << " token " << done;
      done += count;
    }
  }
}

using Gate = DeltaAttentionOptions::Gate;
INSTANTIATE_TEST_SUITE_P(Shapes, DeltaAttention,
                         ::testing::Values(DeltaSetup{1, 1, 4, 4, {5}}, DeltaSetup{2, 4, 8, 6, {17, 1, 0, 40}}, DeltaSetup{2, 2, 16, 33, {70, 3}}, DeltaSetup{1, 3, 10, 64, {16, 32, 33}, false, Gate::kSilu, 2},
                                           DeltaSetup{2, 2, 8, 8, {17, 1, 0, 40}, true, Gate::kSigmoid}, DeltaSetup{1, 2, 12, 40, {50}, true, Gate::kSigmoid, 3},
                                           DeltaSetup{2, 4, 5, 7, {20, 2}, true, Gate::kSilu, 1}, DeltaSetup{1, 1, 32, 32, {300}}, DeltaSetup{2, 6, 6, 5, {9, 14}, false, Gate::kSilu, 4, true}));

TEST(DeltaAttentionTypes, Bfloat16RoundsInputsAndOutputsOnly) {
  const auto made = make_case({2, 4, 8, 8, {37, 5}});
  const auto rounded = [](const at::Tensor& x) { return leaf(x.detach().to(at::kBFloat16)); };
  const DeltaAttentionInputs narrow = {rounded(made.inputs.qkv_NC), rounded(made.inputs.a_NA), rounded(made.inputs.b_NH), rounded(made.inputs.z_NV)};
  Case same = made;
  same.inputs = {leaf(narrow.qkv_NC.to(at::kFloat)), leaf(narrow.a_NA.to(at::kFloat)), leaf(narrow.b_NH.to(at::kFloat)), leaf(narrow.z_NV.to(at::kFloat))};
  const auto ours = delta_attention(narrow, made.options, made.offsets), expected = delta_attention(same.inputs, made.options, made.offsets);
  EXPECT_TRUE(at::equal(ours, expected.to(at::kBFloat16)));
  const auto dout = random_tensor({ours.size(0), ours.size(1)}, 9).to(at::kBFloat16);
  const auto gradients = torch::autograd::grad({ours}, {narrow.qkv_NC, narrow.a_NA, narrow.b_NH, narrow.z_NV}, {dout});
  const auto expected_gradients = torch::autograd::grad({expected}, same.leaves(), {dout.to(at::kFloat)});
  for (size_t i = 0; i < gradients.size(); ++i) EXPECT_TRUE(at::equal(gradients[i], expected_gradients[i].to(at::kBFloat16))) << i;
}

TEST(DeltaAttentionErrors, NamesWhatIsWrong) {
  const auto message = [](Case made, const std::function<void(Case&)>& spoil) -> std::string {
    spoil(made);
    try {
      delta_attention(made.inputs, made.options, made.offsets);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  const auto made = make_case({2, 4, 8, 8, {6}});
  EXPECT_NE(message(made, [](Case& c) { c.options.num_value_heads = 3; }).find("multiple of the key heads"), std::string::npos);
  EXPECT_NE(message(made, [](Case& c) { c.offsets = {0, 5}; }).find("rise from 0 to 6"), std::string::npos);
  EXPECT_NE(message(made, [](Case& c) { c.inputs.z_NV = c.inputs.z_NV.narrow(1, 0, 5); }).find("expected z [6, 32]"), std::string::npos);
  EXPECT_NE(message(made, [](Case& c) { c.options.decay_bias_A = random_tensor({5}, 1); }).find("4 decay biases, or 32"), std::string::npos);
  EXPECT_NE(message(made, [](Case& c) { c.inputs.b_NH = c.inputs.b_NH.to(at::kBFloat16); }).find("one type"), std::string::npos);
}

}  // namespace
}  // namespace graft
