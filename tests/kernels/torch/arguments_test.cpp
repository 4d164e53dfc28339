// Wrong arguments are one typed error before anything runs, which names operator, argument, what was expected and what came.
#include <functional>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/attention/attention.h"
#include "kernels/common/error.h"
#include "kernels/rms_norm/rms_norm.h"
#include "tests/support/error_of.h"

namespace graft {
namespace {

using testing::HasSubstr;

std::string attention_error(const std::function<void(AttentionOptions&, at::Tensor& qkv, std::vector<int32_t>& positions, std::vector<int32_t>& offsets)>& change) {
  AttentionOptions options;
  options.num_heads = 2;
  options.num_kv_heads = 1;
  options.head_size = 8;
  options.scale = 1;
  options.cosine_PE = options.sine_PE = at::ones({20, 4});
  auto qkv = at::zeros({6, 32});
  std::vector<int32_t> positions = {0, 1, 2, 3, 0, 1}, offsets = {0, 4, 6};
  change(options, qkv, positions, offsets);
  return test::error_of([&] { packed_attention(qkv, options, positions, offsets); });
}

TEST(AttentionArguments, AreChecked) {
  EXPECT_EQ(attention_error([](auto&, auto&, auto&, auto&) {}), "no error");
  EXPECT_THAT(attention_error([](auto&, auto& qkv, auto&, auto&) { qkv = qkv.to(at::kInt); }), HasSubstr("attention: expected qkv of Float or BFloat16 [-1, 32] on cpu, got Int [6, 32] on cpu"));
  EXPECT_THAT(attention_error([](auto&, auto& qkv, auto&, auto&) { qkv = at::zeros({6, 31}); }), HasSubstr("got Float [6, 31]"));
  EXPECT_THAT(attention_error([](auto& options, auto&, auto&, auto&) { options.sinks_H = at::zeros({2}, at::kMeta); }), HasSubstr("expected sinks of Float [2] on cpu, got Float [2] on meta"));
  EXPECT_THAT(attention_error([](auto& options, auto&, auto&, auto&) { options.query_norm_D = at::zeros({8}, at::kBFloat16); }), HasSubstr("expected query_norm of Float [8]"));
  EXPECT_THAT(attention_error([](auto& options, auto&, auto&, auto&) { options.alibi_slopes_H = at::zeros({3}); }), HasSubstr("expected alibi_slopes of Float [2] on cpu, got Float [3]"));
  EXPECT_THAT(attention_error([](auto& options, auto&, auto&, auto&) { options.num_kv_heads = 0; }), HasSubstr("query heads in a multiple of the key-value heads"));
  EXPECT_THAT(attention_error([](auto& options, auto&, auto&, auto&) { options.cosine_PE = options.sine_PE = at::ones({20, 5}); }), HasSubstr("at most 4 turning pairs, got 5"));
  EXPECT_THAT(attention_error([](auto&, auto&, auto& positions, auto&) { positions[3] = 20; }), HasSubstr("expected positions below 20, got 20"));
  EXPECT_THAT(attention_error([](auto&, auto&, auto& positions, auto&) { positions.pop_back(); }), HasSubstr("one position a token (6), got 5"));
  EXPECT_THAT(attention_error([](auto&, auto&, auto&, auto& offsets) { offsets = {0, 4, 3, 6}; }), HasSubstr("expected document offsets that rise, got 3 after 4"));
  EXPECT_THAT(attention_error([](auto&, auto&, auto&, auto& offsets) { offsets = {0, 4, 5}; }), HasSubstr("expected document offsets from 0 to 6, got 0 to 5"));
  EXPECT_THAT(attention_error([](auto& options, auto&, auto&, auto&) { options.shared_prefix = 5; }), HasSubstr("a shared prefix within the first document, got 5"));
  EXPECT_THAT(attention_error([](auto& options, auto&, auto&, auto&) { options.selected_keys_NB = at::zeros({6, 0}, at::kByte); }), HasSubstr("1 bytes or more a row, got 0"));
}

TEST(RmsNormArguments, AreChecked) {
  EXPECT_THAT(test::error_of([] { rms_norm(at::zeros({2, 5}), at::zeros({4}), 1e-5); }), HasSubstr("rms_norm: expected"));
  EXPECT_THAT(test::error_of([] { rms_norm(at::zeros({2, 4}, at::kDouble), at::zeros({4}), 1e-5); }), HasSubstr("rms_norm: expected"));
}

}  // namespace
}  // namespace graft
