// The kernels of experts, compiled for the CPU, against sums in double: each from what the one before it gave, forward and backward, by every routing.
#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <random>

#include <gtest/gtest.h>

#include "kernels/experts/experts.cuh"
#include "tests/emulator/case_names.h"
#include "tests/emulator/rows.h"

namespace graft::cuda {
namespace {

using emulator::Buffer;
using Doubles = std::vector<double>;

enum class Routing { kRandom, kOneExpert, kFewExperts };

struct ExpertsCase {
  int tokens = 40, choices = 2, experts = 5, hidden = 72, width = 40, ranks = 8;
  int parts = 2, tile_rows = 64;
  bool bias = false, clamped = false;
  Routing routing = Routing::kRandom;
  bool no_such_expert = false;   // in one choice
};

const std::map<std::string, ExpertsCase>& cases() {
  static const std::map<std::string, ExpertsCase> cases = {
      {"two_parts", {}},
      {"one_part", {.tokens = 50, .width = 72, .parts = 1, .bias = true}},
      {"high_tiles", {.tokens = 90, .choices = 3, .experts = 4, .ranks = 16, .tile_rows = 128, .bias = true}},
      {"several_chunks", {.tokens = 33, .experts = 3, .hidden = 296, .width = 200, .ranks = 4}},
      {"odd_sizes", {.tokens = 23, .choices = 3, .experts = 4, .hidden = 51, .width = 37, .ranks = 5, .bias = true, .clamped = true}},
      {"odd_sizes_of_one_part", {.tokens = 17, .hidden = 33, .width = 133, .ranks = 3, .parts = 1, .tile_rows = 128}},
      {"clamped", {.tokens = 35, .choices = 4, .experts = 6, .hidden = 64, .width = 64, .ranks = 16, .parts = 1, .bias = true, .clamped = true}},
      {"no_adapter", {.ranks = 0, .bias = true}},
      {"rank_32", {.tokens = 20, .hidden = 136, .ranks = 20}},
      {"rank_beyond_a_window", {.tokens = 20, .experts = 2, .hidden = 40, .width = 24, .ranks = 72}},
      {"one_expert_has_all", {.tokens = 150, .choices = 1, .routing = Routing::kOneExpert}},
      {"several_spans", {.tokens = kExpertSpan + 70, .choices = 1, .experts = 3, .hidden = 8, .width = 8, .ranks = 3, .tile_rows = 128, .routing = Routing::kOneExpert}},
      {"experts_without_tokens", {.tokens = 30, .experts = 40, .hidden = 32, .width = 32, .ranks = 4, .routing = Routing::kFewExperts}},
      {"one_row", {.tokens = 1, .choices = 1}},
      {"no_rows", {.tokens = 0}},
      {"no_such_expert", {.tokens = 12, .bias = true, .no_such_expert = true}},
  };
  return cases;
}

template <typename Element>
constexpr double kError = emulator::kIsFloat32<Element> ? 2e-6 : emulator::kRounding<Element>;

template <typename T>
void expect_near(const char* what, const Buffer<T>& got, const Doubles& wanted, double tolerance) {
  ASSERT_EQ(got.size(), wanted.size()) << what;
  double squares = 0;
  for (const double value : wanted) squares += value * value;
  const double typical = wanted.empty() ? 0 : std::sqrt(squares / static_cast<double>(wanted.size()));
  for (size_t i = 0; i < wanted.size(); ++i) ASSERT_NEAR(to_float(got[i]), wanted[i], tolerance * (std::abs(wanted[i]) + typical)) << what << " at " << i << " of " << wanted.size();
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

template <typename Element>
class Layer {
 public:
  explicit Layer(const ExpertsCase& c)
      : case_(c), tokens_(size(c.tokens)), choices_(size(c.choices)), experts_(size(c.experts)), hidden_(size(c.hidden)), width_(size(c.width)), ranks_(size(c.ranks)),
        total_(tokens_ * choices_) {
    route();
    in_ = bank(c.parts, hidden_, 2 * width_);
    down_ = bank(1, width_, hidden_);
    router_ = std::make_unique<Buffer<float>>(total_);
    for (size_t i = 0; i < total_; ++i) (*router_)[i] = std::abs(normal_(random_)) + 0.1F;
  }

  void check() {
    const auto x = filled(tokens_ * hidden_, 1), dy = filled(tokens_ * hidden_, 1);
    // Forward.
    const auto z_in = shrink("z of gate and up", {x->data(), true}, *x, false, hidden_, in_);
    const auto h = unwritten(total_ * 2 * width_), q = unwritten(total_ * width_);
    ASSERT_EQ(launch(ExpertGateUp{rows_, kType, in_.of, x->data(), data(z_in), kind(), kAlpha, kLimit, h->data(), q->data()}, nullptr), nullptr);
    Doubles wanted(h->size());
    for_rows([&](size_t m, size_t e, size_t token, size_t) {
      for (size_t o = 0; o < 2 * width_; ++o) wanted[m * 2 * width_ + o] = product(in_, e, o, *x, token, z_in, m);
    });
    expect_near("h", known(*h, 2 * width_), wanted, kError<Element>);
    wanted.assign(q->size(), 0);
    for_rows([&](size_t m, size_t, size_t, size_t) {
      for (size_t i = 0; i < width_; ++i) wanted[m * width_ + i] = activated(*h, m, i);
    });
    expect_near("q", known(*q, width_), wanted, kError<Element>);
    const auto z_out = shrink("z of down", {q->data(), false}, *q, false, width_, down_);
    const auto o = unwritten(total_ * hidden_);
    ASSERT_EQ(launch(ExpertDown{rows_, kType, down_.of, q->data(), data(z_out), o->data()}, nullptr), nullptr);
    wanted.assign(o->size(), 0);
    for_rows([&](size_t m, size_t e, size_t, size_t) {
      for (size_t c = 0; c < hidden_; ++c) wanted[m * hidden_ + c] = product(down_, e, c, *q, m, z_out, m);
    });
    expect_near("o", known(*o, hidden_), wanted, kError<Element>);
    combine("y", *o, true);

    // Backward.
    const auto dz_out = shrink("dz of down", {dy->data(), true}, *dy, true, hidden_, down_);
    const auto dh = unwritten(total_ * 2 * width_), again = unwritten(total_ * width_);
    const auto num_partials = size(static_cast<int>(expert_weight_partials(case_.width)));
    Buffer<float> partials(num_partials * total_, NAN), dweights(total_, NAN);
    ASSERT_EQ(launch(ExpertDownBackward{rows_, kType, down_.of, dy->data(), data(dz_out), router_->data(), h->data(), kind(), kAlpha, kLimit, dh->data(), again->data(),
                                        partials.data()}, nullptr), nullptr);
    for (size_t i = 0; i < known(*q, width_).size(); ++i) ASSERT_EQ(to_float(known(*again, width_)[i]), to_float(known(*q, width_)[i])) << "q again at " << i;
    Doubles dh_wanted(dh->size()), dw_wanted(total_);
    for_rows([&](size_t m, size_t e, size_t token, size_t choice) {
      for (size_t i = 0; i < width_; ++i) {
        const double dq = product_backward(down_, e, i, *dy, token, dz_out, m);
        dw_wanted[choice] += dq * to_float((*q)[m * width_ + i]);
        const auto [dgate, dup] = slopes(*h, m, i);
        dh_wanted[m * 2 * width_ + i] = (*router_)[choice] * dq * dgate;
        dh_wanted[m * 2 * width_ + width_ + i] = (*router_)[choice] * dq * dup;
      }
      for (size_t c = 0; case_.bias && c < hidden_; ++c) dw_wanted[choice] += static_cast<double>((*down_.bias)[e * hidden_ + c]) * to_float((*dy)[token * hidden_ + c]);
    });
    expect_near("dh", known(*dh, 2 * width_), dh_wanted, kError<Element>);
    ASSERT_EQ(launch(ExpertWeightsBackward{rows_, kType, partials.data(), static_cast<int>(num_partials), down_.of.bias_EO, dy->data(), case_.hidden, dweights.data()}, nullptr), nullptr);
    expect_near("dw", dweights, dw_wanted, 4e-6);
    const auto dz_in = shrink("dz of gate and up", {dh->data(), false}, *dh, true, 2 * width_, in_);
    const auto dp = unwritten(total_ * hidden_);
    ASSERT_EQ(launch(ExpertGateUpBackward{rows_, kType, in_.of, dh->data(), data(dz_in), dp->data()}, nullptr), nullptr);
    wanted.assign(dp->size(), 0);
    for_rows([&](size_t m, size_t e, size_t, size_t) {
      for (size_t c = 0; c < hidden_; ++c) wanted[m * hidden_ + c] = product_backward(in_, e, c, *dh, m, dz_in, m);
    });
    expect_near("dp", known(*dp, hidden_), wanted, kError<Element>);
    combine("dx", *dp, false);
    if (ranks_ == 0) return;
    factor_gradient("dA of gate and up", {x->data(), true}, *x, hidden_, dz_in, false, true);
    factor_gradient("dB of gate and up", {dh->data(), false}, *dh, 2 * width_, z_in, false, false);
    factor_gradient("dA of down", {q->data(), false}, *q, width_, dz_out, true, true);
    factor_gradient("dB of down", {dy->data(), true}, *dy, hidden_, z_out, true, false);
  }

  const ExpertRows& rows() const { return rows_; }

 private:
  static constexpr RowType kType = emulator::kRowType<Element>;
  static constexpr float kAlpha = 1.3F, kLimit = 0.9F;
  using Elements = std::unique_ptr<Buffer<Element>>;

  struct Bank {
    ExpertMatrices of = {};
    std::vector<Elements> weights;      // [expert * parts + part]
    std::unique_ptr<Buffer<const void*>> pointers;
    Elements a_EC, b_ER;
    std::unique_ptr<Buffer<float>> bias;
    float scale = 0;
    double weight(size_t e, size_t o, size_t i) const {
      const size_t rows = size(static_cast<int>(of.outputs)) / size(of.parts);
      return to_float((*weights[e * size(of.parts) + o / rows])[o % rows * size(static_cast<int>(of.inputs)) + i]);
    }
  };

  static size_t size(int value) { return static_cast<size_t>(value); }
  GatedActivationRows::Kind kind() const { return case_.clamped ? GatedActivationRows::Kind::kClampedSwiGlu : GatedActivationRows::Kind::kSwiGlu; }
  static const void* data(const Elements& buffer) { return buffer ? buffer->data() : nullptr; }
  Elements unwritten(size_t count) { return std::make_unique<Buffer<Element>>(count, from_float<Element>(NAN)); }
  Elements filled(size_t count, float deviation) {
    auto buffer = std::make_unique<Buffer<Element>>(count);
    for (size_t i = 0; i < count; ++i) (*buffer)[i] = from_float<Element>(deviation * normal_(random_));
    return buffer;
  }

  void route() {
    std::vector<int64_t> all(experts_), chosen;
    std::iota(all.begin(), all.end(), 0);
    for (size_t n = 0; n < tokens_; ++n) {
      if (case_.routing == Routing::kRandom) std::shuffle(all.begin(), all.end(), random_);
      const size_t first = case_.routing == Routing::kFewExperts ? 3 + n % 2 * 17 : case_.routing == Routing::kOneExpert ? 1 : 0;
      for (size_t k = 0; k < choices_; ++k) chosen.push_back(all[first + k]);
    }
    if (case_.no_such_expert) chosen[3] = case_.experts;
    chosen_ = std::make_unique<Buffer<int64_t>>(chosen);
    rows_.num_tokens = case_.tokens;
    rows_.choices = case_.choices;
    rows_.num_experts = case_.experts;
    rows_.tile_rows = case_.tile_rows;
    const auto total = static_cast<int64_t>(total_);
    rows_.num_tiles = static_cast<int>(most_pieces(total, case_.experts, case_.tile_rows));
    rows_.num_spans = static_cast<int>(most_pieces(total, case_.experts, kExpertSpan));
    order_ = std::make_unique<Buffer<int32_t>>(total_, -1);
    place_ = std::make_unique<Buffer<int32_t>>(total_, -1);
    first_span_ = std::make_unique<Buffer<int32_t>>(experts_ + 1);
    tiles_ = std::make_unique<Buffer<ExpertPiece>>(size(rows_.num_tiles));
    spans_ = std::make_unique<Buffer<ExpertPiece>>(size(rows_.num_spans));
    rows_.chosen_NK = chosen_->data();
    rows_.order_M = order_->data();
    rows_.place_NK = place_->data();
    rows_.tiles = tiles_->data();
    rows_.spans = spans_->data();
    rows_.first_span_E1 = first_span_->data();
    Buffer<int32_t> counts(static_cast<size_t>(list_chunks(total)) * experts_);
    EXPECT_EQ(launch(ExpertLists{rows_, counts.data()}, nullptr), nullptr);
  }

  Bank bank(int parts, size_t inputs, size_t outputs) {
    Bank bank;
    bank.of.parts = parts;
    bank.of.ranks = case_.ranks;
    bank.of.inputs = static_cast<int64_t>(inputs);
    bank.of.outputs = static_cast<int64_t>(outputs);
    std::vector<const void*> pointers;
    for (size_t i = 0; i < experts_ * size(parts); ++i) {
      bank.weights.push_back(filled(outputs / size(parts) * inputs, 0.2F));
      pointers.push_back(bank.weights.back()->data());
    }
    bank.pointers = std::make_unique<Buffer<const void*>>(pointers);
    bank.of.weights = bank.pointers->data();
    if (case_.bias) {
      bank.bias = std::make_unique<Buffer<float>>(experts_ * outputs);
      emulator::fill_normal(*bank.bias, 77);
      bank.of.bias_EO = bank.bias->data();
    }
    if (ranks_ == 0) return bank;
    bank.a_EC = filled(experts_ * ranks_ * inputs, 0.3F);
    bank.b_ER = filled(experts_ * outputs * ranks_, 0.3F);
    bank.of.a_EC = bank.a_EC->data();
    bank.of.b_ER = bank.b_ER->data();
    bank.scale = parts == 1 ? 1.7F : -0.6F;
    return bank;
  }

  // f(row, expert, token, choice) on the rows that there are.
  template <typename Function>
  void for_rows(const Function& f) const {
    for (size_t choice = 0; choice < total_; ++choice) {
      if ((*place_)[choice] >= 0) f(static_cast<size_t>((*place_)[choice]), static_cast<size_t>((*chosen_)[choice]), choice / choices_, choice);
    }
  }
  // Rows of no expert stay as they were: here zeros instead.
  Buffer<Element>& known(Buffer<Element>& rows, size_t columns) const {
    const size_t missing = case_.no_such_expert ? 1 : 0;
    for (size_t i = rows.size() - missing * columns; i < rows.size(); ++i) rows[i] = from_float<Element>(0);
    return rows;
  }

  // Element `o` of [row of p | row of z] [W_e ; B_e]^T + bias.
  double product(const Bank& bank, size_t e, size_t o, const Buffer<Element>& p, size_t p_row, const Elements& z, size_t z_row) const {
    const auto inputs = static_cast<size_t>(bank.of.inputs), outputs = static_cast<size_t>(bank.of.outputs);
    double sum = case_.bias ? (*bank.bias)[e * outputs + o] : 0.0F;
    for (size_t i = 0; i < inputs; ++i) sum += to_float(p[p_row * inputs + i]) * bank.weight(e, o, i);
    for (size_t r = 0; r < ranks_; ++r) sum += static_cast<double>(to_float((*z)[z_row * ranks_ + r])) * to_float((*bank.b_ER)[(e * outputs + o) * ranks_ + r]);
    return sum;
  }
  // Element `i` of [row of dy | row of dz] [W_e ; A_e].
  double product_backward(const Bank& bank, size_t e, size_t i, const Buffer<Element>& dy, size_t dy_row, const Elements& dz, size_t dz_row) const {
    const auto inputs = static_cast<size_t>(bank.of.inputs), outputs = static_cast<size_t>(bank.of.outputs);
    double sum = 0;
    for (size_t o = 0; o < outputs; ++o) sum += to_float(dy[dy_row * outputs + o]) * bank.weight(e, o, i);
    for (size_t r = 0; r < ranks_; ++r) sum += static_cast<double>(to_float((*dz)[dz_row * ranks_ + r])) * to_float((*bank.a_EC)[(e * ranks_ + r) * inputs + i]);
    return sum;
  }
  double activated(const Buffer<Element>& h, size_t m, size_t i) const {
    const double gate = to_float(h[m * 2 * width_ + i]), up = to_float(h[m * 2 * width_ + width_ + i]);
    if (!case_.clamped) return gate * sigmoid(gate) * up;
    const double g = std::min<double>(gate, kLimit), u = std::clamp<double>(up, -kLimit, kLimit);
    return g * sigmoid(kAlpha * g) * (u + 1);
  }
  std::pair<double, double> slopes(const Buffer<Element>& h, size_t m, size_t i) const {
    const double gate = to_float(h[m * 2 * width_ + i]), up = to_float(h[m * 2 * width_ + width_ + i]);
    if (!case_.clamped) return {up * sigmoid(gate) * (1 + gate * (1 - sigmoid(gate))), gate * sigmoid(gate)};
    const double g = std::min<double>(gate, kLimit), u = std::clamp<double>(up, -kLimit, kLimit), s = sigmoid(kAlpha * g);
    return {gate > kLimit ? 0 : (u + 1) * s * (1 + kAlpha * g * (1 - s)), std::abs(up) > kLimit ? 0 : g * s};
  }

  // Of A, factors are [E * R, columns], of B (transposed) [E * columns, R].
  Elements shrink(const char* what, ExpertOperand from, const Buffer<Element>& p, bool transposed, size_t columns, const Bank& bank) {
    if (ranks_ == 0) return nullptr;
    const auto& factors = transposed ? *bank.b_ER : *bank.a_EC;
    auto z = unwritten(total_ * ranks_);
    EXPECT_EQ(launch(ExpertShrink{rows_, kType, from, factors.data(), transposed, static_cast<int64_t>(columns), case_.ranks, bank.scale, z->data()}, nullptr), nullptr);
    Doubles wanted(z->size());
    for_rows([&](size_t m, size_t e, size_t token, size_t) {
      for (size_t r = 0; r < ranks_; ++r) {
        for (size_t c = 0; c < columns; ++c) {
          const double factor = to_float(factors[transposed ? (e * columns + c) * ranks_ + r : (e * ranks_ + r) * columns + c]);
          wanted[m * ranks_ + r] += static_cast<double>(bank.scale) * to_float(p[(from.gathered ? token : m) * columns + c]) * factor;
        }
      }
    });
    expect_near(what, known(*z, ranks_), wanted, kError<Element>);
    return z;
  }

  void combine(const char* what, const Buffer<Element>& of_rows, bool weighted) {
    const auto y = unwritten(tokens_ * hidden_);
    ASSERT_EQ(launch(ExpertCombine{rows_, kType, case_.hidden, of_rows.data(), weighted ? router_->data() : nullptr, y->data()}, nullptr), nullptr);
    Doubles wanted(y->size());
    for_rows([&](size_t m, size_t, size_t token, size_t choice) {
      for (size_t c = 0; c < hidden_; ++c) wanted[token * hidden_ + c] += (weighted ? (*router_)[choice] : 1.0F) * static_cast<double>(to_float(of_rows[m * hidden_ + c]));
    });
    expect_near(what, *y, wanted, kError<Element>);
  }

  void factor_gradient(const char* what, ExpertOperand wide, const Buffer<Element>& of_wide, size_t columns, const Elements& narrow, bool weighted, bool of_a) {   // narrow: null without an adapter
    Buffer<float> partials(size(rows_.num_spans) * columns * size(expert_window(case_.ranks)), NAN), gradient(experts_ * columns * ranks_, NAN);
    ASSERT_EQ(launch(ExpertFactorGradient{rows_, kType, wide, static_cast<int64_t>(columns), narrow ? narrow->data() : nullptr, weighted ? router_->data() : nullptr, case_.ranks, of_a,
                                          partials.data(), gradient.data()}, nullptr), nullptr);
    Doubles wanted(gradient.size());
    for_rows([&](size_t m, size_t e, size_t token, size_t choice) {
      for (size_t r = 0; r < ranks_; ++r) {
        const float low = to_float((*narrow)[m * ranks_ + r]);
        const double factor = weighted ? to_float(from_float<Element>(low * (*router_)[choice])) : low;
        for (size_t c = 0; c < columns; ++c) {
          wanted[of_a ? (e * ranks_ + r) * columns + c : (e * columns + c) * ranks_ + r] += factor * to_float(of_wide[(wide.gathered ? token : m) * columns + c]);
        }
      }
    });
    expect_near(what, gradient, wanted, 8e-6);
  }

  const ExpertsCase& case_;
  std::mt19937 random_{9};
  std::normal_distribution<float> normal_;
  size_t tokens_, choices_, experts_, hidden_, width_, ranks_, total_;
  ExpertRows rows_ = {};
  Bank in_, down_;
  std::unique_ptr<Buffer<float>> router_;
  std::unique_ptr<Buffer<int64_t>> chosen_;
  std::unique_ptr<Buffer<int32_t>> order_, place_, first_span_;
  std::unique_ptr<Buffer<ExpertPiece>> tiles_, spans_;
};

class ExpertKernels : public testing::TestWithParam<std::string> {
 protected:
  const ExpertsCase& example() const { return cases().at(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Cuda, ExpertKernels, testing::ValuesIn(emulator::names_of(cases())), [](const auto& info) { return info.param; });

TEST_P(ExpertKernels, InBfloat16) { Layer<Bfloat16>(example()).check(); }
TEST_P(ExpertKernels, InFloat16) { Layer<Float16>(example()).check(); }
TEST_P(ExpertKernels, InFloat32) { Layer<float>(example()).check(); }

template <typename Arguments>
const char* refusal_of(const ExpertRows& rows) {
  Arguments arguments = {};
  arguments.rows = rows;
  return launch(arguments, nullptr);
}
TEST(ExpertKernels, RefuseATileWithoutKernel) {
  const ExpertsCase c;
  const Layer<float> of(c);
  auto rows = of.rows();
  rows.tile_rows = 32;
  const char* refusal = "no expert kernel of this tile";
  EXPECT_STREQ(refusal_of<ExpertShrink>(rows), refusal);
  EXPECT_STREQ(refusal_of<ExpertGateUp>(rows), refusal);
  EXPECT_STREQ(refusal_of<ExpertDown>(rows), refusal);
  EXPECT_STREQ(refusal_of<ExpertDownBackward>(rows), refusal);
  EXPECT_STREQ(refusal_of<ExpertGateUpBackward>(rows), refusal);
}

TEST(ExpertKernels, HaveTilesThatFitTheirRows) {
  EXPECT_EQ(expert_tile_rows(0, 8), 64);
  EXPECT_EQ(expert_tile_rows(95 * 8, 8), 64);
  EXPECT_EQ(expert_tile_rows(96 * 8, 8), 128);
  EXPECT_EQ(expert_weight_partials(768), 12);
  EXPECT_EQ(expert_weight_partials(129), 4);
  EXPECT_EQ(expert_window(1), 16);
  EXPECT_EQ(expert_window(17), 32);
  EXPECT_EQ(expert_window(33), 64);
}

}  // namespace
}  // namespace graft::cuda
