// What a GPU runs, run on the CPU: OperatorPath::kReference sends CPU tensors through the same ATen code, with weights that have a device copy.
#include "kernels/common/operator_path.h"

#include <array>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels/attention/attention.h"
#include "kernels/attention/key_bits.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/lora_linear/lora_linear.h"
#include "kernels/quantized/small_floats.h"
#include "kernels/rms_norm/rms_norm.h"
#include "tests/kernels/torch/operators.h"

namespace graft {
namespace {

using testing::leaf;
using testing::random_tensor;

class ReferencePath {
 public:
  ReferencePath() { set_operator_path(OperatorPath::kReference); }
  ~ReferencePath() { set_operator_path(OperatorPath::kFast); }
};

using Tensors = std::vector<at::Tensor>;

// f: to a result and the inputs that want gradients. Both paths, result first.
template <typename Function>
std::pair<Tensors, Tensors> both_paths(const Function& f) {
  const auto run = [&] {
    const auto [result, inputs] = f();
    Tensors all = {result.detach()};
    const auto gradient = random_tensor(result.sizes().vec(), 77).to(result.scalar_type());
    for (auto& part : torch::autograd::grad({result}, inputs, {gradient})) all.push_back(part);
    return all;
  };
  const auto fast = run();
  const ReferencePath reference;
  return {fast, run()};
}

void expect_near(const std::pair<Tensors, Tensors>& paths, double tolerance) {
  for (size_t i = 0; i < paths.first.size(); ++i) {
    EXPECT_EQ(paths.first[i].scalar_type(), paths.second[i].scalar_type()) << i;
    EXPECT_GT(paths.first[i].norm().item<double>(), 0) << i;
    EXPECT_LT(relative_error(paths.second[i], paths.first[i]), tolerance) << (i == 0 ? "result" : "gradient ") << i;
  }
}

double tolerance_of(at::ScalarType type) { return type == at::kFloat ? 1e-5 : 1e-2; }

// rows x columns in a stored form. Q8_0: blocks of 32 with a half-precision scale, written by hand.
FrozenWeight stored(TensorType type, int64_t rows, int64_t columns, uint64_t seed) {
  const auto values = random_tensor({rows, columns}, seed, 0.2);
  if (type == TensorType::kF32) return testing::frozen(values);
  auto bytes = std::make_shared<std::vector<std::byte>>();
  const float* v = values.const_data_ptr<float>();
  const auto put = [&](const auto& value) {
    const auto* data = reinterpret_cast<const std::byte*>(&value);
    bytes->insert(bytes->end(), data, data + sizeof value);
  };
  for (int64_t i = 0; i < rows * columns; ++i) {
    if (type == TensorType::kBF16) put(float_to_bf16(v[i]));
    if (type == TensorType::kF16) put(float_to_half(v[i]));
    if (type != TensorType::kQ8_0) continue;
    if (i % 32 == 0) put(float_to_half(0.01f));
    put(static_cast<int8_t>(std::clamp(v[i] / 0.01f, -127.0f, 127.0f)));
  }
  return FrozenWeight(type, rows, columns, bytes->data(), bytes);
}

// (type, whether the fast path multiplies bfloat16 tensors in bfloat16)
class Path : public ::testing::TestWithParam<std::pair<at::ScalarType, bool>> {
 protected:
  at::ScalarType type() const { return GetParam().first; }

 private:
  testing::MultipliesInBf16 products_{GetParam().second};
};
INSTANTIATE_TEST_SUITE_P(Types, Path, ::testing::Values(std::pair(at::kFloat, false), std::pair(at::kBFloat16, false), std::pair(at::kBFloat16, true)),
                         [](const auto& info) { return std::string(c10::toString(info.param.first)) + (info.param.second ? "Products" : ""); });

TEST_P(Path, LoraLinear) {
  const auto type = this->type();
  for (const auto kind : {LinearPrologue::Kind::kNone, LinearPrologue::Kind::kRmsNorm, LinearPrologue::Kind::kSwiGlu}) {
    for (const double probability : {0.0, 0.3}) {
      std::vector<FrozenWeight> weights = {stored(TensorType::kF32, 10, 64, 1), stored(TensorType::kBF16, 7, 64, 2), stored(TensorType::kQ8_0, 9, 64, 3),
                                           stored(TensorType::kF16, 5, 64, 4)};
      for (auto& weight : weights) weight.to_device(at::kCPU, type);
      LinearPrologue prologue;
      prologue.kind = kind;
      prologue.norm_weight_C = random_tensor({64}, 5) + 1;
      prologue.epsilon = 1e-3;
      LoraDropout dropout;
      dropout.probability = probability;
      dropout.key = 0xfedcba9876543210u;
      dropout.row_keys_N = at::arange(21) * 1234567891011 + 5;
      const auto run = [&] {
        Tensors inputs = {leaf(random_tensor({21, kind == LinearPrologue::Kind::kSwiGlu ? 128 : 64}, 6).to(type))};
        std::vector<LinearPart> parts(weights.size());
        for (size_t i = 0; i < parts.size(); ++i) {
          parts[i].weight = &weights[i];
          if (i % 2 == 0) parts[i].bias_O = random_tensor({weights[i].rows()}, 10 + i);
          if (i == 1) continue;   // one without an adapter
          parts[i].lora_a_RC = leaf(random_tensor({3, 64}, 20 + i, 0.3));
          parts[i].lora_b_OR = leaf(random_tensor({weights[i].rows(), 3}, 30 + i, 0.3));
          parts[i].scale = 1.7;
          inputs.insert(inputs.end(), {parts[i].lora_a_RC, parts[i].lora_b_OR});
        }
        return std::pair(lora_linear(inputs[0], prologue, parts, dropout), inputs);
      };
      SCOPED_TRACE(fmt::format("prologue {}, dropout {}", static_cast<int>(kind), probability));
      expect_near(both_paths(run), tolerance_of(type));
    }
  }
}

TEST_P(Path, PackedAttention) {
  const auto type = this->type();
  for (const bool head_norm : {false, true}) {   // with it, tokens see some keys only
    for (const int64_t shared_prefix : {0, 7}) {
      AttentionOptions options;
      options.num_heads = 6;
      options.num_kv_heads = 2;
      options.head_size = 16;
      options.scale = 0.25;
      options.shared_prefix = shared_prefix;
      const auto angles = at::arange(100, at::kFloat).unsqueeze(1) * at::pow(10000.0, -at::arange(8, at::kFloat) / 8);
      options.cosine_PE = angles.cos();
      options.sine_PE = angles.sin();
      if (head_norm) {
        options.query_norm_D = random_tensor({16}, 3) + 1;
        options.key_norm_D = random_tensor({16}, 4) + 1;
        options.head_norm_epsilon = 1e-3;
        const auto seen = at::arange(33).unsqueeze(1).add(at::arange(40)).remainder(3).ne(0);
        options.selected_keys_NB = pack_keys(seen.logical_or(at::arange(40).eq(0)));   // all see the first
      }
      const std::vector<int32_t> offsets = {0, 9, 10, 10, 33};
      std::vector<int32_t> positions;
      for (int32_t n = 0; n < 33; ++n) positions.push_back(n < 9 ? n : n < 10 ? 7 : n - 3);
      const auto run = [&] {
        const auto qkv = leaf(random_tensor({33, 160}, 5).to(type));
        return std::pair(packed_attention(qkv, options, positions, offsets), Tensors{qkv});
      };
      SCOPED_TRACE(fmt::format("head norm {}, shared prefix {}", head_norm, shared_prefix));
      expect_near(both_paths(run), tolerance_of(type));
    }
  }
}

TEST_P(Path, RmsNorm) {
  const auto run = [&] {
    const auto x = leaf(random_tensor({13, 40}, 1).to(type()));
    return std::pair(rms_norm(x, random_tensor({40}, 2) + 1, 1e-3), Tensors{x});
  };
  expect_near(both_paths(run), tolerance_of(type()));
}

TEST_P(Path, LinearCrossEntropy) {
  const auto type = this->type();
  const auto hidden = random_tensor({29, 64}, 1).to(type);
  auto head = stored(TensorType::kQ8_0, 501, 64, 2);
  head.to_device(at::kCPU, type);
  std::vector<int32_t> labels;
  std::vector<float> weights;
  for (int32_t i = 0; i < 29; ++i) {
    labels.push_back(i * 37 % 501);
    weights.push_back(0.5f + 0.1f * static_cast<float>(i % 4));
  }
  for (const bool weighted : {false, true}) {
    for (const int64_t buffer : {int64_t{5000}, int64_t{1} << 20}) {   // two rows a block, all in one
      const CrossEntropyOptions options{true, 1.0 / 29, buffer};
      const auto given = weighted ? weights : std::vector<float>();
      const auto fast = linear_cross_entropy(hidden, head, labels, given, options);
      const ReferencePath reference;
      const auto ours = linear_cross_entropy(hidden, head, labels, given, options);
      EXPECT_NEAR(ours.weighted_loss / fast.weighted_loss, 1, type == at::kFloat ? 1e-6 : 1e-3);
      EXPECT_EQ(ours.correct_M, fast.correct_M);
      for (size_t i = 0; i < labels.size(); ++i) EXPECT_NEAR(ours.losses_M[i] / fast.losses_M[i], 1, type == at::kFloat ? 1e-5 : 1e-2) << i;
      EXPECT_EQ(ours.gradient_MC.scalar_type(), type);
      EXPECT_LT(relative_error(ours.gradient_MC, fast.gradient_MC), tolerance_of(type));
    }
  }
}

// Each piece comes in the buffer where the one before it was.
class TwoPieces : public HeadPieces {
 public:
  explicit TwoPieces(at::ScalarType compute) {
    buffer_ = at::empty({256, 64}, compute);
    for (auto& piece : pieces_) {
      piece.to_device(at::kCPU, compute, DeviceForm::kDecoded);   // as a head is
      copies_.push_back(piece.device_copy().clone());
    }
  }
  int64_t rows() const override { return pieces_[0].rows() + pieces_[1].rows(); }
  int64_t columns() const override { return 64; }
  int64_t num_pieces() const override { return 2; }
  const FrozenWeight& piece(int64_t index) const override {
    auto& piece = pieces_[static_cast<size_t>(index)];
    const auto place = buffer_.narrow(0, 0, piece.rows());
    place.copy_(copies_[static_cast<size_t>(index)]);
    piece.hold(place);
    return piece;
  }

 private:
  mutable std::array<FrozenWeight, 2> pieces_{stored(TensorType::kQ8_0, 256, 64, 2), stored(TensorType::kQ8_0, 77, 64, 3)};
  std::vector<at::Tensor> copies_;
  at::Tensor buffer_;
};

TEST_P(Path, LinearCrossEntropyOfAHeadInPieces) {
  const auto hidden = random_tensor({11, 64}, 1).to(type());
  const TwoPieces head(type());
  const std::vector<int32_t> labels = {0, 1, 255, 256, 257, 332, 100, 300, 5, 6, 7};
  const CrossEntropyOptions options{true, 1.0 / 11, 10000};
  const auto fast = linear_cross_entropy(hidden, head, labels, {}, options);
  const ReferencePath reference;
  const auto ours = linear_cross_entropy(hidden, head, labels, {}, options);
  EXPECT_NEAR(ours.weighted_loss / fast.weighted_loss, 1, type() == at::kFloat ? 1e-6 : 1e-3);
  EXPECT_EQ(ours.gradient_MC.scalar_type(), type());
  EXPECT_LT(relative_error(ours.gradient_MC, fast.gradient_MC), tolerance_of(type()));
}

TEST(DropoutMask, HasTheValuesOfItsFactor) {
  LoraDropout dropout;
  for (const double probability : {0.1, 0.5, 0.999}) {
    dropout.probability = probability;
    dropout.key = 0x9123456789abcdefu;
    dropout.row_keys_N = at::tensor(std::vector<int64_t>{0, 1, (int64_t{77} << 24) + 3, (int64_t{1} << 40) - 1});
    const auto mask = dropout_mask(dropout, 33, at::kCPU);
    for (int64_t n = 0; n < 4; ++n) {
      for (int64_t c = 0; c < 33; ++c) {
        EXPECT_EQ(mask.const_data_ptr<float>()[n * 33 + c], dropout_factor(dropout, dropout.row_keys_N.const_data_ptr<int64_t>()[n], c)) << n << " " << c;
      }
    }
  }
}

TEST(FrozenWeight, DeviceCopiesHoldTheStoredValues) {
  for (const auto type : {TensorType::kF32, TensorType::kF16, TensorType::kBF16, TensorType::kQ8_0}) {
    auto weight = stored(type, 6, 64, 9);
    auto decoded = at::empty({6, 64}, at::kFloat);
    weight.decode_rows(0, 6, decoded.data_ptr<float>(), 64);
    for (const auto compute : {at::kFloat, at::kBFloat16}) {
      EXPECT_TRUE(at::equal(weight.matrix(compute, at::kCPU), decoded.to(compute)));
      weight.to_device(at::kCPU, compute);
      const auto copy = weight.matrix(compute, at::kCPU);
      EXPECT_TRUE(at::equal(copy, decoded.to(compute)));
      const bool resident = copy.const_data_ptr() == weight.matrix(compute, at::kCPU).const_data_ptr();
      const int64_t bytes = FrozenWeight::device_bytes(type, 6 * 64, compute);
      EXPECT_EQ(bytes, static_cast<int64_t>(weight.device_copy().nbytes()));
      EXPECT_EQ(resident, bytes == 6 * 64 * static_cast<int64_t>(c10::elementSize(compute))) << "a narrower stored type is widened at each use, blocks are decoded";
      EXPECT_EQ(bytes, type == TensorType::kQ8_0 ? 6 * 2 * 34 : 6 * 64 * (compute == at::kFloat && type == TensorType::kF32 ? 4 : 2));
      weight.to_device(at::kCPU, compute, DeviceForm::kDecoded);
      EXPECT_TRUE(at::equal(weight.matrix(compute, at::kCPU), decoded.to(compute)));
      EXPECT_EQ(weight.matrix(compute, at::kCPU).const_data_ptr() == weight.device_copy().const_data_ptr(), weight.device_copy().scalar_type() == compute);
      EXPECT_EQ(FrozenWeight::device_bytes(type, 6 * 64, compute, DeviceForm::kDecoded), static_cast<int64_t>(weight.device_copy().nbytes()));
      weight.drop_device_copy();
      EXPECT_NE(weight.matrix(compute, at::kCPU).const_data_ptr(), weight.matrix(compute, at::kCPU).const_data_ptr());
    }
  }
}

}  // namespace
}  // namespace graft
