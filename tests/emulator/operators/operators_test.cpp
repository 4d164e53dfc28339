// Operators through their launchers and kernels against their references, values and gradients, in float32 and bfloat16.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "kernels/attention/attention.h"
#include "kernels/attention/key_bits.h"
#include "kernels/rms_norm/rms_norm.h"
#include "tests/emulator/operators/kernels_under_test.h"
#include "tests/support/relative_error.h"

namespace graft {
namespace {

// Values and the gradient of x, by both paths.
template <typename Function, typename Reference>
void compare(const at::Tensor& x, const Function& function, const Reference& reference, const std::vector<std::string>& kernels) {
  const auto run = [](const at::Tensor& input, const auto& function) {
    const auto leaf = input.clone().requires_grad_();
    const auto y = function(leaf);
    const auto weights = at::sin(at::arange(y.numel(), at::kDouble).view(y.sizes())).to(y.device(), y.scalar_type());
    y.backward(weights);
    return std::pair{y.detach(), leaf.grad()};
  };
  const auto expected = run(x.to(at::kDouble), reference);
  const test::KernelsUnderTest under_test;
  const auto got = run(x.to(under_test.device()), function);
  const double tolerance = x.scalar_type() == at::kFloat ? 2e-6 : 1e-2;
  EXPECT_LE(relative_error(got.first, expected.first), tolerance);
  EXPECT_LE(relative_error(got.second, expected.second), tolerance);
  EXPECT_EQ(under_test.plain_paths(), 0);
  for (const auto& kernel : kernels) EXPECT_NE(under_test.launches(kernel), 0) << kernel;
}

class OperatorIn : public testing::TestWithParam<at::ScalarType> {
 protected:
  at::Tensor random(at::IntArrayRef sizes, uint64_t seed) const { return at::randn(sizes, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions(at::kFloat)).to(GetParam()); }
  at::Tensor positive(int64_t size, uint64_t seed) const { return at::rand({size}, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions(at::kFloat)) + 0.5; }
};
INSTANTIATE_TEST_SUITE_P(Types, OperatorIn, testing::Values(at::kFloat, at::kBFloat16), [](const auto& info) { return std::string(c10::toString(info.param)); });

TEST_P(OperatorIn, RmsNorm) {
  const auto weight = positive(72, 3);
  compare(random({5, 72}, 1), [&](const at::Tensor& x) { return rms_norm(x, weight.to(x.device()), 1e-2); },
          [&](const at::Tensor& x) { return rms_norm_reference(x, weight, 1e-2); }, {"rms_norm_forward", "rms_norm_backward"});
}

AttentionOptions options_of(int64_t num_heads, int64_t num_kv_heads, int64_t head_size) {
  AttentionOptions options;
  options.num_heads = num_heads;
  options.num_kv_heads = num_kv_heads;
  options.head_size = head_size;
  options.scale = 0.3;
  return options;
}

// With its tensors on a device.
AttentionOptions moved(AttentionOptions options, at::Device device) {
  for (auto* tensor : {&options.query_norm_D, &options.key_norm_D, &options.cosine_PE, &options.sine_PE, &options.query_scale_P, &options.alibi_slopes_H, &options.sinks_H, &options.selected_keys_NB}) {
    if (tensor->defined()) *tensor = tensor->to(device);
  }
  return options;
}

const std::vector<std::string> kAttentionKernels = {"attention_forward", "attention_query_gradient", "attention_key_gradient"};
const std::vector<int32_t> kOffsets = {0, 30, 31, 31, 75};
std::vector<int32_t> positions_of(const std::vector<int32_t>& offsets) {
  std::vector<int32_t> positions;
  for (size_t d = 0; d + 1 < offsets.size(); ++d) {
    for (int32_t n = 0; n < offsets[d + 1] - offsets[d]; ++n) positions.push_back(n);
  }
  return positions;
}

void compare_attention(const at::Tensor& qkv, const AttentionOptions& options, const std::vector<std::string>& kernels) {
  const auto positions = positions_of(kOffsets);
  compare(qkv, [&](const at::Tensor& x) { return packed_attention(x, moved(options, x.device()), positions, kOffsets); },
          [&](const at::Tensor& x) { return packed_attention_reference(x, options, positions, kOffsets); }, kernels);
}

TEST_P(OperatorIn, PlainAttention) {
  const auto options = options_of(4, 2, 24);
  compare_attention(random({75, 8 * 24}, 1), options, kAttentionKernels);
}

TEST_P(OperatorIn, AttentionWithAllThatComesBefore) {
  auto options = options_of(4, 2, 24);
  const auto angles = at::outer(at::arange(80, at::kFloat), at::arange(1, 9, at::kFloat) / 9);
  options.cosine_PE = angles.cos();
  options.sine_PE = angles.sin();
  options.query_norm_D = positive(24, 5);
  options.key_norm_D = positive(24, 6);
  options.head_norm_epsilon = 1e-2;
  options.query_scale_P = positive(80, 7);
  auto kernels = kAttentionKernels;
  kernels.insert(kernels.end(), {"prepare_heads<", "prepare_heads_backward<"});
  for (const bool after : {false, true}) {
    for (const bool neighbours : {false, true}) {
      options.norm_after_rotation = after;
      options.neighbouring_pairs = neighbours;
      compare_attention(random({75, 8 * 24}, 1), options, kernels);
    }
  }
}

TEST_P(OperatorIn, AttentionWithAllOptions) {
  auto options = options_of(4, 4, 16);
  options.window = 20;
  options.softcap = 1.5;
  options.shared_prefix = 7;
  options.alibi_slopes_H = positive(4, 8) * 0.1;
  options.sinks_H = positive(4, 9);
  auto seen = at::rand({75, 96}, at::make_generator<at::CPUGeneratorImpl>(uint64_t{4}), at::TensorOptions(at::kFloat)) > 0.3;
  for (size_t d = 0; d + 1 < kOffsets.size(); ++d) {   // a query sees itself
    for (int32_t n = kOffsets[d]; n < kOffsets[d + 1]; ++n) seen.select(0, n).select(0, n - kOffsets[d] + (d == 0 ? 0 : 7)).fill_(true);
  }
  options.selected_keys_NB = pack_keys(seen);
  compare_attention(random({75, 12 * 16}, 1), options, kAttentionKernels);
}

// In three batches what one computes; a copy of a sequence's cache goes its own way.
void compare_cached(const at::Tensor& qkv, const AttentionOptions& options, double tolerance) {
  const auto positions = positions_of(kOffsets);
  const auto expected = packed_attention_reference(qkv.to(at::kDouble), options, positions, kOffsets);
  const auto device = test::KernelsUnderTest::device();
  const auto on_device = moved(options, device);
  std::vector<KeyValueCache> caches(kOffsets.size() - 1);
  caches.back().reserved = 60;
  const auto continued = [&](std::vector<KeyValueCache>& of, const at::Tensor& tokens_of_all, const std::vector<int32_t>& ends) {
    std::vector<int32_t> offsets = {0}, places;
    std::vector<int64_t> rows;
    std::vector<KeyValueCache*> pointers;
    for (size_t d = 0; d < of.size(); ++d) {
      for (auto n = static_cast<int32_t>(of[d].length); n < ends[d]; ++n) {
        rows.push_back(kOffsets[d] + n);
        places.push_back(n);
      }
      offsets.push_back(static_cast<int32_t>(rows.size()));
      pointers.push_back(&of[d]);
    }
    const auto index = at::tensor(rows);
    return std::pair{index, cached_attention(tokens_of_all.index_select(0, index).to(device), on_device, places, offsets, pointers).cpu()};
  };
  for (const std::vector<int32_t>& ends : {std::vector<int32_t>{12, 0, 0, 30}, {29, 1, 0, 43}, {30, 1, 0, 44}}) {
    auto branch = caches;
    const auto [rows, got] = continued(caches, qkv, ends);
    EXPECT_LE(relative_error(got, expected.index_select(0, rows)), tolerance);
    continued(branch, qkv * -2, ends);   // over what the next batch reads, were it shared
  }
}

TEST_P(OperatorIn, CachedAttention) {
  auto options = options_of(4, 2, 24);
  const auto angles = at::outer(at::arange(80, at::kFloat), at::arange(1, 9, at::kFloat) / 9);
  options.cosine_PE = angles.cos();
  options.sine_PE = angles.sin();
  options.query_norm_D = positive(24, 5);
  options.key_norm_D = positive(24, 6);
  options.window = 25;
  const auto qkv = random({75, 8 * 24}, 1);
  const test::KernelsUnderTest under_test;
  compare_cached(qkv, options, GetParam() == at::kFloat ? 2e-6 : 1e-2);
  EXPECT_EQ(under_test.plain_paths(), 0);
  for (const char* kernel : {"append_to_caches", "attention_forward"}) EXPECT_NE(under_test.launches(kernel), 0) << kernel;
}

TEST(Operators, CachedAttentionOfAnyHeads) {
  const test::KernelsUnderTest under_test;
  compare_cached(at::randn({75, 4 * 6}), options_of(2, 1, 6), 1e-5);   // rows of 24 bytes: no kernel
  EXPECT_GT(under_test.plain_paths(), 0);
}

TEST(Operators, TakeThePlainPathWhereNoKernelIs) {
  const test::KernelsUnderTest under_test;
  const auto options = options_of(2, 1, 6);   // rows of 24 bytes
  packed_attention(at::randn({9, 4 * 6}).to(under_test.device()), options, positions_of({0, 9}), std::vector<int32_t>{0, 9});
  EXPECT_EQ(under_test.plain_paths(), 1);
}

}  // namespace
}  // namespace graft
