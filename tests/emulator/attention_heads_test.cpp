// Head norm, rotary embedding and query scale, compiled for the CPU, against plain loops in double; the gradient against differences of that forward.
#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "kernels/attention/attention_heads.cuh"
#include "kernels/cuda/elements.cuh"
#include "tests/emulator/buffer.h"

namespace graft::cuda {
namespace {

using emulator::Buffer;
using Doubles = std::vector<double>;

struct Case {
  int head_size = 64, rotary_pairs = 32, num_tokens = 5;
  bool norm = false, norm_after = false, neighbours = false, scales = false;
};

constexpr int kQueryHeads = 3, kKeyHeads = 2, kPositions = 40, kHeads = kQueryHeads + kKeyHeads;
constexpr float kEpsilon = 1e-2F;

struct Tables {
  Buffer<float> query_norm, key_norm, cosine, sine, scale;
  Buffer<int32_t> positions;

  explicit Tables(const Case& c)
      : query_norm(static_cast<size_t>(c.head_size)), key_norm(query_norm.size()), cosine(static_cast<size_t>(kPositions * c.rotary_pairs)), sine(cosine.size()), scale(kPositions),
        positions(static_cast<size_t>(c.num_tokens)) {
    std::mt19937 random(5);
    std::uniform_real_distribution<float> uniform(0.5F, 1.5F);
    for (auto* table : {&query_norm, &key_norm, &scale}) {
      for (size_t i = 0; i < table->size(); ++i) (*table)[i] = uniform(random);
    }
    for (size_t i = 0; i < cosine.size(); ++i) {
      const float angle = 6 * uniform(random);
      cosine[i] = std::cos(angle);
      sine[i] = std::sin(angle);
    }
    for (size_t n = 0; n < positions.size(); ++n) positions[n] = static_cast<int32_t>((n * 7 + 3) % kPositions);
  }
};

// One head.
Doubles prepared(const Case& c, const Tables& tables, const Doubles& x, int token, bool is_query) {
  Doubles y = x;
  const auto position = static_cast<size_t>(tables.positions[static_cast<size_t>(token)]);
  const auto norm = [&] {
    if (!c.norm) return;
    double squares = 0;
    for (const double value : y) squares += value * value;
    const auto& weight = is_query ? tables.query_norm : tables.key_norm;
    for (size_t i = 0; i < y.size(); ++i) y[i] *= weight[i] / std::sqrt(squares / c.head_size + kEpsilon);
  };
  if (!c.norm_after) norm();
  for (int pair = 0; pair < c.rotary_pairs; ++pair) {
    const size_t first = static_cast<size_t>(c.neighbours ? 2 * pair : pair), second = static_cast<size_t>(c.neighbours ? 2 * pair + 1 : pair + c.rotary_pairs);
    const size_t entry = position * static_cast<size_t>(c.rotary_pairs) + static_cast<size_t>(pair);
    const double a = y[first], b = y[second];
    y[first] = a * tables.cosine[entry] - b * tables.sine[entry];
    y[second] = b * tables.cosine[entry] + a * tables.sine[entry];
  }
  if (c.norm_after) norm();
  if (c.scales && is_query) {
    for (auto& value : y) value *= tables.scale[position];
  }
  return y;
}

template <typename Element>
void check(const Case& c) {
  const Tables tables(c);
  std::mt19937 random(9);
  std::normal_distribution<float> normal;
  const int row = kHeads * c.head_size + 16;   // a row is wider: values stand behind
  const auto n = static_cast<size_t>(c.num_tokens), size = static_cast<size_t>(c.head_size);
  Buffer<Element> rows(n * static_cast<size_t>(row)), gradient(n * kHeads * size), out(n * kHeads * size), rows_gradient(n * kHeads * size);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = from_float<Element>(normal(random));
  for (size_t i = 0; i < gradient.size(); ++i) gradient[i] = from_float<Element>(normal(random));
  const HeadPreparation of{{rows.data(), row, c.head_size}, sizeof(Element) == 4 ? RowType::kFloat32 : std::is_same<Element, Bfloat16>::value ? RowType::kBfloat16 : RowType::kFloat16,
                           c.num_tokens, kQueryHeads, kKeyHeads, c.head_size, c.norm ? tables.query_norm.data() : nullptr, c.norm ? tables.key_norm.data() : nullptr, kEpsilon, c.norm_after,
                           c.rotary_pairs ? tables.cosine.data() : nullptr, c.rotary_pairs ? tables.sine.data() : nullptr, c.rotary_pairs, c.neighbours, c.scales ? tables.scale.data() : nullptr,
                           tables.positions.data()};
  const int64_t stride = int64_t(kHeads) * c.head_size;
  ASSERT_EQ(launch(HeadPreparationForward{of, {out.data(), stride, c.head_size}}, nullptr), nullptr);
  ASSERT_EQ(launch(HeadPreparationBackward{of, {gradient.data(), stride, c.head_size}, {rows_gradient.data(), stride, c.head_size}}, nullptr), nullptr);
  const double tolerance = sizeof(Element) == 4 ? 1e-5 : std::is_same<Element, Bfloat16>::value ? 8e-3 : 1e-3;
  for (int token = 0; token < c.num_tokens; ++token) {
    for (int head = 0; head < kHeads; ++head) {
      const bool is_query = head < kQueryHeads;
      const size_t first = (static_cast<size_t>(token) * kHeads + static_cast<size_t>(head)) * size;
      Doubles x(size);
      for (size_t i = 0; i < size; ++i) x[i] = to_float(rows[static_cast<size_t>(token * row + head * c.head_size) + i]);
      const auto wanted = prepared(c, tables, x, token, is_query);
      for (size_t i = 0; i < size; ++i) ASSERT_NEAR(to_float(out[first + i]), wanted[i], tolerance * (1 + std::abs(wanted[i]))) << "token " << token << " head " << head << " element " << i;
      for (size_t i = 0; i < size; i += 5) {
        constexpr double kStep = 1e-4;
        auto more = x, less = x;
        more[i] += kStep;
        less[i] -= kStep;
        const auto above = prepared(c, tables, more, token, is_query), below = prepared(c, tables, less, token, is_query);
        double slope = 0;
        for (size_t k = 0; k < size; ++k) slope += (above[k] - below[k]) / (2 * kStep) * to_float(gradient[first + k]);
        ASSERT_NEAR(to_float(rows_gradient[first + i]), slope, tolerance * (1 + std::abs(slope))) << "gradient: token " << token << " head " << head << " element " << i;
      }
    }
  }
}

template <typename Element>
class AttentionHeads : public testing::Test {};
using Elements = testing::Types<Bfloat16, Float16, float>;
TYPED_TEST_SUITE(AttentionHeads, Elements);

TYPED_TEST(AttentionHeads, Turn) {
  check<TypeParam>({});
  check<TypeParam>({.head_size = 256, .rotary_pairs = 128, .num_tokens = 2});
  check<TypeParam>({.head_size = 80, .rotary_pairs = 10});
  check<TypeParam>({.head_size = 8, .rotary_pairs = 4, .num_tokens = 1});
}
TYPED_TEST(AttentionHeads, TurnNeighbours) {
  check<TypeParam>({.neighbours = true});
  check<TypeParam>({.head_size = 24, .rotary_pairs = 4, .neighbours = true});
}
TYPED_TEST(AttentionHeads, AreNormalisedBeforeTheyTurn) {
  check<TypeParam>({.norm = true});
  check<TypeParam>({.head_size = 96, .rotary_pairs = 16, .norm = true, .neighbours = true});
}
TYPED_TEST(AttentionHeads, AreNormalisedAfterTheyTurn) { check<TypeParam>({.head_size = 48, .rotary_pairs = 24, .norm = true, .norm_after = true}); }
TYPED_TEST(AttentionHeads, ScaleQueries) { check<TypeParam>({.norm = true, .scales = true}); }
TYPED_TEST(AttentionHeads, StayWithoutATable) {
  check<TypeParam>({.rotary_pairs = 0, .norm = true});
  check<TypeParam>({.rotary_pairs = 0, .num_tokens = 0});
}

}  // namespace
}  // namespace graft::cuda
