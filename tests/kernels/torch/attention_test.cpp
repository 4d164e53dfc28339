#include "kernels/attention/attention.h"
#include "kernels/attention/key_bits.h"

#include <torch/csrc/autograd/autograd.h>

#include "tests/kernels/torch/operators.h"

namespace graft {
namespace {

using testing::leaf;
using testing::random_tensor;

struct AttentionSetup {
  int64_t num_heads, num_kv_heads, head_size;
  bool head_norm;
  std::vector<int32_t> lengths;
  int64_t turning = -1;               // elements of a head that rotate; -1: all, 0: none
  bool neighbouring_pairs = false, norm_after_rotation = false, query_scale = false;
  int64_t window = 0;
  double softcap = 0;
  bool slopes = false;
  bool sinks = false;
  bool selected = false;              // a token sees its own key and few others, none of many blocks of keys
};

struct Inputs {
  AttentionOptions options;
  at::Tensor qkv;
  std::vector<int32_t> positions, offsets{0};
};

void select_keys(Inputs& inputs) {
  const int64_t tokens = inputs.offsets.back();
  auto seen = random_tensor({tokens, tokens + 5}, 7).gt(1).logical_and(random_tensor({tokens, 1}, 8).gt(0));
  for (size_t d = 0; d + 1 < inputs.offsets.size(); ++d) {
    const int64_t before = d == 0 ? 0 : inputs.options.shared_prefix;
    for (int64_t n = inputs.offsets[d]; n < inputs.offsets[d + 1]; ++n) seen[n][before + n - inputs.offsets[d]] = true;
  }
  inputs.options.selected_keys_NB = pack_keys(seen);
}

Inputs make_inputs(const AttentionSetup& setup) {
  Inputs inputs;
  for (const auto length : setup.lengths) {
    for (int32_t i = 0; i < length; ++i) inputs.positions.push_back(i);
    inputs.offsets.push_back(inputs.offsets.back() + length);
  }
  auto& options = inputs.options;
  options.num_heads = setup.num_heads;
  options.num_kv_heads = setup.num_kv_heads;
  options.head_size = setup.head_size;
  options.scale = 1 / std::sqrt(static_cast<double>(setup.head_size));
  const int64_t pairs = (setup.turning < 0 ? setup.head_size : setup.turning) / 2;
  if (pairs > 0) {
    const auto angles = at::arange(600, at::kFloat).unsqueeze(1) * at::pow(10000.0, -at::arange(pairs, at::kFloat) / pairs);
    options.cosine_PE = angles.cos();
    options.sine_PE = angles.sin();
  }
  options.neighbouring_pairs = setup.neighbouring_pairs;
  options.norm_after_rotation = setup.norm_after_rotation;
  if (setup.query_scale) options.query_scale_P = 1 + at::arange(600, at::kFloat) / 100;
  options.window = setup.window;
  options.softcap = setup.softcap;
  if (setup.slopes) options.alibi_slopes_H = at::pow(0.5, at::arange(setup.num_heads, at::kFloat) + 1);
  if (setup.sinks) options.sinks_H = random_tensor({setup.num_heads}, 6);
  if (setup.head_norm) {
    options.query_norm_D = random_tensor({setup.head_size}, 3) + 1;
    options.key_norm_D = random_tensor({setup.head_size}, 4) + 1;
    options.head_norm_epsilon = 1e-3;
  }
  inputs.qkv = leaf(random_tensor({inputs.offsets.back(), (setup.num_heads + 2 * setup.num_kv_heads) * setup.head_size}, 5));
  if (setup.selected) select_keys(inputs);
  return inputs;
}

class PackedAttention : public ::testing::TestWithParam<AttentionSetup> {};

TEST_P(PackedAttention, EqualsTheSpecification) {
  const auto inputs = make_inputs(GetParam());
  const auto ours = packed_attention(inputs.qkv, inputs.options, inputs.positions, inputs.offsets);
  const auto expected = packed_attention_reference(inputs.qkv, inputs.options, inputs.positions, inputs.offsets);
  EXPECT_LT(relative_error(ours, expected), 2e-6);
  const auto dout = random_tensor({ours.size(0), ours.size(1)}, 6);
  const auto gradient = torch::autograd::grad({ours}, {inputs.qkv}, {dout})[0];
  const auto expected_gradient = torch::autograd::grad({expected}, {inputs.qkv}, {dout})[0];
  EXPECT_LT(relative_error(gradient, expected_gradient), 5e-6);
}

// The first two thirds of the first document stand before all others too.
TEST_P(PackedAttention, SharedPrefixEqualsTheSpecificationAndRepeatedTokens) {
  auto inputs = make_inputs(GetParam());
  auto& options = inputs.options;
  options.shared_prefix = inputs.offsets[1] * 2 / 3;
  if (GetParam().selected) select_keys(inputs);
  std::vector<int64_t> repeated;    // token of the compact rows at each row of the documents written out
  std::vector<int32_t> positions, offsets{0};
  std::vector<int64_t> kept;        // rows written out that the compact result has
  for (size_t d = 0; d + 1 < inputs.offsets.size(); ++d) {
    const int64_t before = d == 0 ? 0 : options.shared_prefix;
    for (int64_t n = 0; n < before; ++n) repeated.push_back(n);
    for (int32_t n = inputs.offsets[d]; n < inputs.offsets[d + 1]; ++n) {
      kept.push_back(static_cast<int64_t>(repeated.size()));
      repeated.push_back(n);
      inputs.positions[n] = static_cast<int32_t>(before + n - inputs.offsets[d]);
    }
    offsets.push_back(static_cast<int32_t>(repeated.size()));
  }
  for (const auto n : repeated) positions.push_back(inputs.positions[n]);
  const auto ours = packed_attention(inputs.qkv, options, inputs.positions, inputs.offsets);
  const auto expected = packed_attention_reference(inputs.qkv, options, inputs.positions, inputs.offsets);
  EXPECT_LT(relative_error(ours, expected), 2e-6);
  const auto dout = random_tensor({ours.size(0), ours.size(1)}, 6);
  const auto gradient = torch::autograd::grad({ours}, {inputs.qkv}, {dout})[0];
  EXPECT_LT(relative_error(gradient, torch::autograd::grad({expected}, {inputs.qkv}, {dout})[0]), 5e-6);

  options.shared_prefix = 0;
  if (GetParam().selected) options.selected_keys_NB = options.selected_keys_NB.index_select(0, at::tensor(repeated));
  const auto written_out = inputs.qkv.index_select(0, at::tensor(repeated));
  const auto apart = packed_attention_reference(written_out, options, positions, offsets).index_select(0, at::tensor(kept));
  EXPECT_LT(relative_error(ours, apart), 2e-6);
  EXPECT_LT(relative_error(gradient, torch::autograd::grad({apart}, {inputs.qkv}, {dout})[0]), 5e-6);
}

TEST_P(PackedAttention, OneTokenAtATimeEqualsOnePass) {
  const auto inputs = make_inputs(GetParam());
  const auto qkv = inputs.qkv.detach();
  const auto whole = packed_attention(qkv, inputs.options, inputs.positions, inputs.offsets);
  for (size_t d = 0; d + 1 < inputs.offsets.size(); ++d) {
    KeyValueCache cache;
    KeyValueCache* caches[] = {&cache};
    const int64_t begin = inputs.offsets[d], length = inputs.offsets[d + 1] - begin;
    for (int64_t done = 0; done < length;) {
      const int64_t count = done == 0 ? (length + 1) / 2 : 1;   // prefill, then token by token
      const std::vector<int32_t> positions(inputs.positions.begin() + begin + done, inputs.positions.begin() + begin + done + count);
      const std::vector<int32_t> offsets = {0, static_cast<int32_t>(count)};
      auto options = inputs.options;
      if (GetParam().selected) options.selected_keys_NB = options.selected_keys_NB.narrow(0, begin + done, count);
      const auto part = cached_attention(qkv.narrow(0, begin + done, count).contiguous(), options, positions, offsets, caches);
      ASSERT_LT(relative_error(part, whole.narrow(0, begin + done, count)), 1e-5) << "document " << d << " token " << done;
      done += count;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, PackedAttention,
                         ::testing::Values(AttentionSetup{1, 1, 8, false, {5}}, AttentionSetup{9, 3, 64, false, {17, 1, 0, 40}}, AttentionSetup{4, 2, 6, true, {3, 30}},
                                           AttentionSetup{2, 1, 16, false, {300, 7}}, AttentionSetup{2, 2, 10, true, {520}}));
// Each option alone and with the others, within one block of keys and over several.
INSTANTIATE_TEST_SUITE_P(Options, PackedAttention,
                         ::testing::Values(AttentionSetup{.num_heads = 4, .num_kv_heads = 2, .head_size = 12, .head_norm = false, .lengths = {9, 31}, .turning = 6},
                                           AttentionSetup{.num_heads = 4, .num_kv_heads = 2, .head_size = 10, .head_norm = true, .lengths = {9, 31}, .neighbouring_pairs = true},
                                           AttentionSetup{.num_heads = 2, .num_kv_heads = 1, .head_size = 12, .head_norm = true, .lengths = {17, 3}, .turning = 8, .neighbouring_pairs = true, .norm_after_rotation = true},
                                           AttentionSetup{.num_heads = 3, .num_kv_heads = 3, .head_size = 6, .head_norm = true, .lengths = {23}, .norm_after_rotation = true, .query_scale = true},
                                           AttentionSetup{.num_heads = 3, .num_kv_heads = 1, .head_size = 8, .head_norm = false, .lengths = {21, 1}, .turning = 0},
                                           AttentionSetup{.num_heads = 2, .num_kv_heads = 1, .head_size = 8, .head_norm = false, .lengths = {40, 5, 0, 12}, .window = 4},
                                           AttentionSetup{.num_heads = 2, .num_kv_heads = 2, .head_size = 8, .head_norm = false, .lengths = {590}, .window = 270},
                                           AttentionSetup{.num_heads = 2, .num_kv_heads = 2, .head_size = 8, .head_norm = false, .lengths = {590, 3}, .window = 1},
                                           AttentionSetup{.num_heads = 4, .num_kv_heads = 2, .head_size = 8, .head_norm = false, .lengths = {30, 7}, .softcap = 1.5},
                                           AttentionSetup{.num_heads = 5, .num_kv_heads = 5, .head_size = 8, .head_norm = false, .lengths = {30, 7, 300}, .turning = 0, .slopes = true},
                                           AttentionSetup{.num_heads = 2, .num_kv_heads = 1, .head_size = 12, .head_norm = true, .lengths = {530, 20}, .turning = 4, .neighbouring_pairs = true, .query_scale = true, .window = 37, .softcap = 2, .slopes = true},
                                           AttentionSetup{.num_heads = 4, .num_kv_heads = 2, .head_size = 16, .head_norm = false, .lengths = {300, 1, 40}, .window = 33, .sinks = true},
                                           AttentionSetup{.num_heads = 3, .num_kv_heads = 1, .head_size = 8, .head_norm = false, .lengths = {9, 280}, .sinks = true},
                                           AttentionSetup{.num_heads = 3, .num_kv_heads = 3, .head_size = 8, .head_norm = false, .lengths = {29, 0, 1, 40}, .selected = true},
                                           AttentionSetup{.num_heads = 2, .num_kv_heads = 1, .head_size = 12, .head_norm = true, .lengths = {590, 20}, .window = 300, .softcap = 2, .sinks = true, .selected = true}));

TEST(PackedAttention, SelectedKeysInBfloat16EqualTheSpecification) {
  for (const bool products : {false, true}) {
    const testing::MultipliesInBf16 switched(products);
    auto inputs = make_inputs({.num_heads = 2, .num_kv_heads = 2, .head_size = 16, .head_norm = false, .lengths = {300, 33}, .selected = true});
    const auto qkv = leaf(inputs.qkv.to(at::kBFloat16)), exact = leaf(qkv.to(at::kDouble));
    const auto ours = packed_attention(qkv, inputs.options, inputs.positions, inputs.offsets);
    const auto expected = packed_attention_reference(exact, inputs.options, inputs.positions, inputs.offsets);
    EXPECT_LT(relative_error(ours, expected), 5e-3);
    const auto dout = random_tensor({ours.size(0), ours.size(1)}, 6);
    const auto gradient = torch::autograd::grad({ours}, {qkv}, {dout.to(at::kBFloat16)})[0];
    EXPECT_LT(relative_error(gradient, torch::autograd::grad({expected}, {exact}, {dout.to(at::kDouble)})[0]), 1e-2);
  }
}

// What is not selected may as well not be there: dense attention over the keys that one query sees.
TEST(PackedAttention, AQuerySeesItsSelectedKeysOnly) {
  auto inputs = make_inputs({.num_heads = 2, .num_kv_heads = 2, .head_size = 8, .head_norm = false, .lengths = {23}, .turning = 0});
  const std::vector<int64_t> seen = {1, 8, 9, 17, 22};
  auto rows = at::ones({23, 23}, at::kBool);
  rows[22].zero_();
  for (const auto key : seen) rows[22][key] = true;
  inputs.options.selected_keys_NB = pack_keys(rows);
  EXPECT_TRUE(at::equal(unpack_keys(inputs.options.selected_keys_NB, 23), rows));
  const auto whole = packed_attention(inputs.qkv.detach(), inputs.options, inputs.positions, inputs.offsets);
  inputs.options.selected_keys_NB = at::Tensor();
  const auto few = inputs.qkv.detach().index_select(0, at::tensor(seen));
  const auto alone = packed_attention(few, inputs.options, std::vector<int32_t>{0, 1, 2, 3, 4}, std::vector<int32_t>{0, 5});
  EXPECT_LT(relative_error(whole[22], alone[4]), 1e-6);
}

TEST(PackedAttentionErrors, NamesWhatIsWrong) {
  auto inputs = make_inputs({2, 1, 4, false, {3, 2}});
  EXPECT_THROW(packed_attention(inputs.qkv.narrow(1, 0, 12), inputs.options, inputs.positions, inputs.offsets), std::runtime_error);
  EXPECT_THROW(packed_attention(inputs.qkv, inputs.options, inputs.positions, std::vector<int32_t>{0, 4, 3, 5}), std::runtime_error);
  EXPECT_THROW(packed_attention(inputs.qkv, inputs.options, std::vector<int32_t>{0, 1, 2, 0}, inputs.offsets), std::runtime_error);
  inputs.options.selected_keys_NB = at::ones({4, 1}, at::kByte);
  EXPECT_THROW(packed_attention(inputs.qkv, inputs.options, inputs.positions, inputs.offsets), std::runtime_error);
  inputs.options.selected_keys_NB = at::Tensor();
  inputs.positions[0] = 600;
  EXPECT_THROW(packed_attention(inputs.qkv, inputs.options, inputs.positions, inputs.offsets), std::runtime_error);
}

}  // namespace
}  // namespace graft
