// The kernels of LoRA linear, compiled for the CPU, against sums in double: every width and element type, parts of unequal ranks, dropout, both passes.
#include <cmath>
#include <functional>
#include <map>
#include <random>

#include <gtest/gtest.h>

#include "kernels/cuda/elements.cuh"
#include "kernels/lora_linear/lora_windows.h"
#include "tests/emulator/buffer.h"
#include "tests/emulator/case_names.h"

namespace graft::cuda {
namespace {

using emulator::Buffer;
using Doubles = std::vector<double>;

struct PartCase {
  int outputs = 40, ranks = 16;
  bool bias = false;
  float scale = 1.5F;
};

struct Case {
  std::vector<PartCase> parts = {{}};
  int rows = 70, inputs = 80;
  double dropout = 0;
  bool input_gradient = true;
  int tiles_of_a_split = 0;   // 0: what lora_windows chooses
};

template <typename Element>
constexpr RowType kType = sizeof(Element) == 4 ? RowType::kFloat32 : std::is_same<Element, Bfloat16>::value ? RowType::kBfloat16 : RowType::kFloat16;
template <typename Element>
constexpr double kRounding = sizeof(Element) == 4 ? 2e-6 : std::is_same<Element, Bfloat16>::value ? 0x1p-8 : 0x1p-11;

// dropout_factor of lora_linear.cpp.
double factor_of(double probability, uint64_t key, int64_t row_key, int64_t column) {
  uint64_t bits = key + 0x9e3779b97f4a7c15U * (static_cast<uint64_t>(row_key) * 0xd1342543de82ef95U + static_cast<uint64_t>(column) + 1);
  bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9U;
  bits = (bits ^ bits >> 27) * 0x94d049bb133111ebU;
  bits ^= bits >> 31;
  return static_cast<double>(bits >> 11) * 0x1p-53 < probability ? 0 : 1 / (1 - probability);
}

template <typename T>
void expect_near(const char* what, const Buffer<T>& got, const Doubles& wanted, double tolerance) {
  ASSERT_EQ(got.size(), wanted.size()) << what;
  double squares = 0;
  for (const double value : wanted) squares += value * value;
  const double typical = wanted.empty() ? 0 : std::sqrt(squares / static_cast<double>(wanted.size()));
  for (size_t i = 0; i < wanted.size(); ++i) ASSERT_NEAR(to_float(got[i]), wanted[i], tolerance * (std::abs(wanted[i]) + typical)) << what << " at " << i << " of " << wanted.size();
}

template <typename Element>
class Layer {
 public:
  explicit Layer(const Case& c)
      : case_(c), rows_(static_cast<size_t>(c.rows)), inputs_(static_cast<size_t>(c.inputs)), random_(7) {
    layer_.type = kType<Element>;
    layer_.num_rows = c.rows;
    layer_.inputs = c.inputs;
    for (const auto& of : c.parts) {
      auto& part = layer_.parts[layer_.num_parts++];
      const auto ranks = static_cast<size_t>(of.ranks), outputs = static_cast<size_t>(of.outputs);
      part.first_output = layer_.outputs;
      part.outputs = of.outputs;
      part.first_rank = layer_.ranks;
      part.ranks = of.ranks;
      part.scale = of.scale;
      part.a_RC = normal(floats_, ranks * inputs_);
      part.b_OR = normal(floats_, outputs * ranks);
      part.bias_O = of.bias ? normal(floats_, outputs) : nullptr;
      part.a_gradient_RC = floats_.emplace_back(std::make_unique<Buffer<float>>(ranks * inputs_, NAN))->data();
      part.b_gradient_OR = floats_.emplace_back(std::make_unique<Buffer<float>>(outputs * ranks, NAN))->data();
      layer_.outputs += of.outputs;
      part.padded_ranks = static_cast<int>(lora_padded(of.ranks));
      layer_.ranks += part.padded_ranks;
      layer_.b_stride = std::max(layer_.b_stride, part.padded_ranks);
    }
    outputs_ = static_cast<size_t>(layer_.outputs);
    ranks_ = static_cast<size_t>(layer_.ranks);
    for (size_t n = 0; n < rows_; ++n) keys_.push_back(static_cast<int64_t>(n * 1234567 + 89));
    row_keys_ = std::make_unique<Buffer<int64_t>>(keys_);
    if (c.dropout > 0) layer_.mask = {row_keys_->data(), 991, lora_threshold(c.dropout), static_cast<float>(1 / (1 - c.dropout))};
    a_stride_ = static_cast<size_t>(lora_padded(c.inputs));
    b_stride_ = static_cast<size_t>(layer_.b_stride);
    a_ = std::make_unique<Buffer<Element>>(ranks_ * a_stride_, from_float<Element>(NAN));
    b_ = std::make_unique<Buffer<Element>>(outputs_ * b_stride_, from_float<Element>(NAN));
    layer_.a_RC = a_->data();
    layer_.b_OR = b_->data();
  }

  void check() {
    ASSERT_EQ(launch(LoraFactors{layer_}, nullptr), nullptr);
    check_factors();
    Buffer<Element> p(rows_ * inputs_), z(rows_ * ranks_, from_float<Element>(NAN));
    fill(p);
    for (const auto& window : windows(LoraPass::kShrink)) {
      Buffer<float> partials(static_cast<size_t>(lora_row_partials(LoraPass::kShrink, layer_, window)), NAN);
      ASSERT_EQ(launch(LoraShrink{layer_, window, p.data(), z.data(), partials.data()}, nullptr), nullptr);
    }
    const auto dropped = dropped_of(p);
    Doubles wanted(z.size());
    for_ranks([&](size_t n, size_t r, const LoraPart& part) {
      for (size_t c = 0; c < inputs_; ++c) wanted[n * ranks_ + r] += part.scale * dropped[n * inputs_ + c] * a_at(r, c);
    });
    expect_near("z", z, wanted, kRounding<Element>);

    Buffer<Element> y(rows_ * outputs_);
    fill(y);
    wanted = doubles(y);
    for (const auto& window : windows(LoraPass::kExpand)) ASSERT_EQ(launch(LoraExpand{layer_, window, z.data(), y.data()}, nullptr), nullptr);
    for_parts([&](const LoraPart& part, size_t n, size_t o) {
      auto& value = wanted[n * outputs_ + o];
      if (part.bias_O || part.ranks > 0) value = 0;   // of other parts nothing is written
      if (part.bias_O) value += part.bias_O[o - static_cast<size_t>(part.first_output)];
      for (size_t r = 0; r < static_cast<size_t>(part.ranks); ++r) value += z_at(z, part, n, r) * b_at(o, r);
    });
    expect_near("y", y, wanted, kRounding<Element> * static_cast<double>(std::max<size_t>(1, lora_windows(LoraPass::kExpand, layer_).size())));

    Buffer<Element> y_gradient(rows_ * outputs_), z_gradient(rows_ * ranks_, from_float<Element>(NAN));
    fill(y_gradient);
    for (const auto& window : windows(LoraPass::kExpandBackward)) {
      Buffer<float> z_partials(static_cast<size_t>(lora_row_partials(LoraPass::kExpandBackward, layer_, window)), NAN);
      Buffer<float> b_partials(static_cast<size_t>(lora_factor_partials(LoraPass::kExpandBackward, layer_, window)), NAN);
      ASSERT_EQ(launch(LoraExpandBackward{layer_, window, y_gradient.data(), z.data(), z_gradient.data(), z_partials.data(), b_partials.data()}, nullptr), nullptr);
    }
    wanted.assign(rows_ * ranks_, 0);
    std::vector<Doubles> b_wanted(case_.parts.size());
    for (size_t i = 0; i < b_wanted.size(); ++i) b_wanted[i].resize(static_cast<size_t>(layer_.parts[i].outputs * layer_.parts[i].ranks));
    for_parts([&](const LoraPart& part, size_t n, size_t o) {
      for (size_t r = 0; r < static_cast<size_t>(part.ranks); ++r) {
        const double gradient = to_float(y_gradient[n * outputs_ + o]);
        wanted[n * ranks_ + static_cast<size_t>(part.first_rank) + r] += part.scale * gradient * b_at(o, r);
        b_wanted[static_cast<size_t>(&part - layer_.parts)][(o - static_cast<size_t>(part.first_output)) * static_cast<size_t>(part.ranks) + r] += gradient * z_at(z, part, n, r);
      }
    });
    expect_near("dz", z_gradient, wanted, kRounding<Element>);
    for (size_t i = 0; i < b_wanted.size(); ++i) expect_floats("dB", layer_.parts[i].b_gradient_OR, b_wanted[i]);

    Buffer<Element> p_gradient(rows_ * inputs_);
    fill(p_gradient);
    wanted = doubles(p_gradient);
    if (case_.input_gradient && layer_.ranks > 0) wanted.assign(wanted.size(), 0);
    for (const auto& window : windows(LoraPass::kShrinkBackward)) {
      Buffer<float> partials(static_cast<size_t>(lora_factor_partials(LoraPass::kShrinkBackward, layer_, window)), NAN);
      ASSERT_EQ(launch(LoraShrinkBackward{layer_, window, z_gradient.data(), p.data(), case_.input_gradient ? p_gradient.data() : nullptr, partials.data()}, nullptr), nullptr);
    }
    std::vector<Doubles> a_wanted(case_.parts.size());
    for (size_t i = 0; i < a_wanted.size(); ++i) a_wanted[i].resize(static_cast<size_t>(layer_.parts[i].ranks) * inputs_);
    for_ranks([&](size_t n, size_t r, const LoraPart& part) {
      const double gradient = to_float(z_gradient[n * ranks_ + r]);
      for (size_t c = 0; c < inputs_; ++c) {
        if (case_.input_gradient) wanted[n * inputs_ + c] += gradient * a_at(r, c) * factor(n, c);
        a_wanted[static_cast<size_t>(&part - layer_.parts)][(r - static_cast<size_t>(part.first_rank)) * inputs_ + c] += gradient * dropped[n * inputs_ + c];
      }
    });
    expect_near("dp", p_gradient, wanted, kRounding<Element> * static_cast<double>(std::max<size_t>(1, lora_windows(LoraPass::kShrinkBackward, layer_).size())));
    for (size_t i = 0; i < a_wanted.size(); ++i) expect_floats("dA", layer_.parts[i].a_gradient_RC, a_wanted[i]);
  }

  const LoraLayer& layer() const { return layer_; }

 private:
  using Floats = std::vector<std::unique_ptr<Buffer<float>>>;
  const float* normal(Floats& all, size_t size) {
    auto& buffer = *all.emplace_back(std::make_unique<Buffer<float>>(size));
    fill(buffer);
    return buffer.data();
  }
  template <typename T>
  void fill(Buffer<T>& buffer) {
    std::normal_distribution<float> distribution;
    for (size_t i = 0; i < buffer.size(); ++i) buffer[i] = from_float<T>(distribution(random_));
  }
  template <typename T>
  static Doubles doubles(const Buffer<T>& buffer) {
    Doubles values;
    for (size_t i = 0; i < buffer.size(); ++i) values.push_back(to_float(buffer[i]));
    return values;
  }
  void expect_floats(const char* what, const float* got, const Doubles& wanted) {
    Buffer<float> copy(wanted.size());
    std::copy_n(got, wanted.size(), copy.data());
    expect_near(what, copy, wanted, kRounding<float> * 4);
  }

  std::vector<LoraWindow> windows(LoraPass pass) const {
    auto all = lora_windows(pass, layer_);
    if (case_.tiles_of_a_split == 0) return all;
    for (auto& window : all) {
      const int tile = pass == LoraPass::kShrink ? kLoraShrinkColumns : kLoraRows;
      const int64_t length = pass == LoraPass::kShrink ? layer_.inputs : layer_.num_rows;
      window.split = case_.tiles_of_a_split;
      window.num_splits = static_cast<int>((length + window.split * tile - 1) / (window.split * tile));
      if (pass == LoraPass::kShrink) window.split *= tile;
    }
    return all;
  }

  void check_factors() {
    Doubles a(a_->size()), b(b_->size());
    for (int i = 0; i < layer_.num_parts; ++i) {
      const auto& part = layer_.parts[i];
      for (int64_t r = 0; r < part.ranks; ++r) {
        for (int64_t c = 0; c < layer_.inputs; ++c) a[static_cast<size_t>(part.first_rank + r) * a_stride_ + static_cast<size_t>(c)] = to_float(from_float<Element>(part.a_RC[r * layer_.inputs + c]));
        for (int64_t o = 0; o < part.outputs; ++o) b[static_cast<size_t>(part.first_output + o) * b_stride_ + static_cast<size_t>(r)] = to_float(from_float<Element>(part.b_OR[o * part.ranks + r]));
      }
    }
    expect_near("A", *a_, a, 0);
    expect_near("B", *b_, b, 0);
  }

  double a_at(size_t rank, size_t c) const { return to_float((*a_)[rank * a_stride_ + c]); }
  double b_at(size_t o, size_t r) const { return to_float((*b_)[o * b_stride_ + r]); }
  double z_at(const Buffer<Element>& z, const LoraPart& part, size_t n, size_t r) const { return to_float(z[n * ranks_ + static_cast<size_t>(part.first_rank) + r]); }
  double factor(size_t n, size_t c) const { return case_.dropout > 0 ? factor_of(case_.dropout, layer_.mask.key, keys_[n], static_cast<int64_t>(c)) : 1; }
  Doubles dropped_of(const Buffer<Element>& p) const {
    Doubles dropped(p.size());
    for (size_t i = 0; i < p.size(); ++i) dropped[i] = to_float(from_float<Element>(static_cast<float>(to_float(p[i]) * static_cast<float>(factor(i / inputs_, i % inputs_)))));
    return dropped;
  }

  template <typename Function>
  void for_parts(const Function& f) const {   // f(part, row, output of all)
    for (int i = 0; i < layer_.num_parts; ++i) {
      const auto& part = layer_.parts[i];
      for (size_t n = 0; n < rows_; ++n) {
        for (auto o = static_cast<size_t>(part.first_output); o < static_cast<size_t>(part.first_output + part.outputs); ++o) f(part, n, o);
      }
    }
  }
  template <typename Function>
  void for_ranks(const Function& f) const {   // f(row, column of z, part), without padding
    for (size_t n = 0; n < rows_; ++n) {
      for (int i = 0; i < layer_.num_parts; ++i) {
        const auto& part = layer_.parts[i];
        for (int r = part.first_rank; r < part.first_rank + part.ranks; ++r) f(n, static_cast<size_t>(r), part);
      }
    }
  }

  const Case& case_;
  LoraLayer layer_ = {};
  size_t rows_, inputs_, outputs_ = 0, ranks_ = 0, a_stride_ = 0, b_stride_ = 0;
  std::mt19937 random_;
  Floats floats_;
  std::vector<int64_t> keys_;
  std::unique_ptr<Buffer<int64_t>> row_keys_;
  std::unique_ptr<Buffer<Element>> a_, b_;
};

const std::map<std::string, Case>& cases() {
  static const std::map<std::string, Case> cases = {
      {"one_part", {}},
      {"rank_of_one", {.parts = {{.ranks = 1}}, .rows = 33, .inputs = 24}},
      {"one_row", {.rows = 1}},
      {"no_rows", {.rows = 0}},
      {"rank_32", {.parts = {{.outputs = 530, .ranks = 32}}, .rows = 65}},
      {"rank_64", {.parts = {{.outputs = 264, .ranks = 64}}, .rows = 65}},
      {"rank_beyond_a_window", {.parts = {{.outputs = 72, .ranks = 200}}, .inputs = 72}},
      {"odd_sizes", {.parts = {{.outputs = 37, .ranks = 5, .bias = true}, {.outputs = 3, .ranks = 9}}, .rows = 67, .inputs = 51, .dropout = 0.3}},
      {"queries_keys_values", {.parts = {{.outputs = 136, .ranks = 16, .bias = true, .scale = 2}, {.outputs = 40, .ranks = 8, .bias = true, .scale = -0.5F}, {.outputs = 40, .ranks = 20}}, .rows = 130, .inputs = 200}},
      {"some_without_adapter", {.parts = {{.outputs = 24, .ranks = 0}, {.outputs = 136, .ranks = 7}, {.outputs = 16, .ranks = 0, .bias = true}, {.outputs = 8, .ranks = 3}}}},
      {"only_biases", {.parts = {{.outputs = 24, .ranks = 0}, {.outputs = 40, .ranks = 0, .bias = true}}}},
      {"unequal_windows", {.parts = {{.outputs = 40, .ranks = 140, .bias = true}, {.outputs = 200, .ranks = 4, .bias = true}}, .inputs = 72}},
      {"dropout", {.rows = 140, .dropout = 0.25}},
      {"no_gradient_of_inputs", {.dropout = 0.5, .input_gradient = false}},
      {"splits_by_choice", {.rows = 20, .inputs = 1100}},
      {"many_splits", {.parts = {{.outputs = 48, .ranks = 16}, {.outputs = 24, .ranks = 3}}, .rows = 200, .inputs = 200, .dropout = 0.1, .tiles_of_a_split = 1}},
      {"uneven_splits", {.rows = 300, .inputs = 328, .tiles_of_a_split = 2}},
  };
  return cases;
}

class LoraLinear : public testing::TestWithParam<std::string> {
 protected:
  const Case& example() const { return cases().at(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Cuda, LoraLinear, testing::ValuesIn(emulator::names_of(cases())), [](const auto& info) { return info.param; });

TEST_P(LoraLinear, InBfloat16) { Layer<Bfloat16>(example()).check(); }
TEST_P(LoraLinear, InFloat16) { Layer<Float16>(example()).check(); }
TEST_P(LoraLinear, InFloat32) { Layer<float>(example()).check(); }

TEST(LoraLinear, RefusesAWidthWithoutKernel) {
  const Layer<float> of(cases().at("one_part"));
  LoraWindow window = {};
  window.width = 48;
  EXPECT_STREQ(launch(LoraShrink{of.layer(), window, nullptr, nullptr, nullptr}, nullptr), "no LoRA kernel of this width");
  EXPECT_STREQ(launch(LoraExpandBackward{of.layer(), window, nullptr, nullptr, nullptr, nullptr, nullptr}, nullptr), "no LoRA kernel of this width");
  window.width = 128;   // of float32
  EXPECT_STREQ(launch(LoraShrinkBackward{of.layer(), window, nullptr, nullptr, nullptr, nullptr}, nullptr), "no LoRA kernel of this width");
}

// Every rank, column and row once, whatever the sizes; enough blocks for a large GPU where there is enough work.
TEST(LoraWindows, CoverAllWork) {
  for (const int64_t rows : {1, 63, 64, 4096, 100000}) {
    for (const int ranks : {1, 16, 17, 64, 128, 129, 500}) {
      for (const auto type : {RowType::kFloat32, RowType::kBfloat16}) {
        LoraLayer layer = {};
        layer.type = type;
        layer.num_rows = rows;
        layer.inputs = 4096;
        layer.num_parts = 2;
        layer.parts[0].outputs = 4096;
        layer.parts[1].outputs = 1000;
        layer.parts[0].ranks = ranks;
        layer.parts[1].ranks = 8;
        layer.outputs = 5096;
        layer.ranks = static_cast<int>(lora_padded(ranks)) + 8;
        for (const auto pass : {LoraPass::kShrink, LoraPass::kExpand, LoraPass::kExpandBackward, LoraPass::kShrinkBackward}) {
          SCOPED_TRACE(testing::Message() << rows << " rows, " << ranks << " ranks, pass " << static_cast<int>(pass));
          int next = 0;
          for (const auto& window : lora_windows(pass, layer)) {
            EXPECT_EQ(window.first, next);
            EXPECT_LE(window.width, pass == LoraPass::kShrink ? 192 : lora_most_ranks(pass, type == RowType::kFloat32));
            next += lora_most_ranks(pass, type == RowType::kFloat32);
            const int64_t length = pass == LoraPass::kShrink ? layer.inputs : (rows + kLoraRows - 1) / kLoraRows;
            EXPECT_GE(window.split * window.num_splits, length);
            EXPECT_LT(window.split * (window.num_splits - 1), length);
            if (pass == LoraPass::kExpandBackward) {
              const int columns = lora_expand_backward_columns(type == RowType::kFloat32, window.width);
              EXPECT_EQ(window.first_chunk[1], (4096 + columns - 1) / columns);
              EXPECT_EQ(window.first_chunk[2] - window.first_chunk[1], window.first > 0 ? 0 : (1000 + columns - 1) / columns);
              EXPECT_EQ(window.num_chunks, window.first_chunk[2]);
            }
            const int blocks = pass == LoraPass::kShrink ? window.num_splits * 32 : window.num_splits * window.num_chunks;
            if (rows == 4096 && window.first == 0) {
              EXPECT_GE(blocks, 128);
            }
          }
          EXPECT_GE(next, pass == LoraPass::kExpand || pass == LoraPass::kExpandBackward ? ranks : layer.ranks);
        }
      }
    }
  }
}

TEST(LoraWindows, ThresholdKeepsAsTheFormula) {
  EXPECT_EQ(lora_threshold(0.5), uint64_t{1} << 52);
  EXPECT_EQ(lora_threshold(0x1p-53), 1U);
  EXPECT_EQ(lora_threshold(0x1p-60), 1U);
}

}  // namespace
}  // namespace graft::cuda
