// The kernels of linear_kl, compiled for the CPU, against sums in double: every divergence and type of rows, widths around a pack and a step, every option.
#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda/elements.cuh"
#include "kernels/linear_kl/kl_rows.cuh"
#include "tests/emulator/buffer.h"

namespace graft::cuda {
namespace {

using emulator::Buffer;
using Doubles = std::vector<double>;

struct Case {
  int rows = 3, width = 1000;
  float softcap = 0, teacher_softcap = 0, temperature = 1;
  Mixture mixture = jensen_shannon(0.3);
  bool gradient = true;
  int entries = 0;        // 0: the teacher by logits
  bool tail = true;       // beside entries
  int impossible = 0;     // every so manieth token is not the teacher's
};

template <typename Logit, typename Gradient>
constexpr LogitType kType = sizeof(Logit) == 2 ? LogitType::kBfloat16 : sizeof(Gradient) == 2 ? LogitType::kFloat32ToBfloat16 : LogitType::kFloat32;

Doubles log_softmax(Doubles x) {
  const double largest = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const double value : x) sum += std::exp(value - largest);
  for (double& value : x) value -= largest + std::log(sum);
  return x;
}

// Loss and gradient by the log-probabilities of outcomes.
double expected(Divergence kind, const Mixture& mixture, const Doubles& log_p, const Doubles& log_q, Doubles& gradient) {
  const auto [a, m] = mixture;
  double loss = 0, mean = 0;
  Doubles g(log_p.size());
  for (size_t i = 0; i < log_p.size(); ++i) {
    const double p = std::exp(log_p[i]), q = std::exp(log_q[i]), mixed = m * p + (1 - m) * q, log_m = std::log(mixed);
    if (kind == Divergence::kForwardKl) {
      loss += p > 0 ? p * (log_p[i] - log_q[i]) : 0;
      g[i] = q > 0 ? -p / q : 0;
    } else if (kind == Divergence::kReverseKl) {
      g[i] = q > 0 ? log_q[i] - log_p[i] : 0;
      loss += q * g[i];
    } else {
      g[i] = q > 0 ? (1 - a) * (log_q[i] - log_m) - (1 - m) * (a * p + (1 - a) * q) / mixed : 0;
      loss += (q > 0 ? (1 - a) * q * (log_q[i] - log_m) : 0) + (p > 0 ? a * p * (log_p[i] - log_m) : 0);
    }
    mean += q * g[i];
  }
  gradient.clear();
  for (size_t i = 0; i < g.size(); ++i) gradient.push_back(std::exp(log_q[i]) * (g[i] - mean));
  return loss;
}

template <typename Element>
Buffer<Element> random_logits(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 3);
  std::vector<Element> values(count);
  for (auto& value : values) value = from_float<Element>(normal(random));
  return Buffer<Element>(values);
}

double capped(double logit, double cap) { return cap > 0 ? cap * std::tanh(logit / cap) : logit; }

template <typename Logit, typename Gradient>
void check(Divergence kind, const Case& c) {
  SCOPED_TRACE(testing::Message() << c.rows << " rows of " << c.width << ", divergence " << static_cast<int>(kind));
  const int64_t stride = (c.width + 7) / 8 * 8 + 8;   // further apart than they must be
  const auto row_count = static_cast<size_t>(c.rows);
  auto student = random_logits<Logit>(row_count * static_cast<size_t>(stride), 1), teacher = random_logits<Logit>(row_count * static_cast<size_t>(stride), 2);
  if (c.impossible > 0) {
    for (size_t i = 0; i < teacher.size(); i += static_cast<size_t>(c.impossible)) teacher[i] = from_float<Logit>(-INFINITY);
  }
  Buffer<float> scales(row_count), losses(row_count);
  for (size_t n = 0; n < row_count; ++n) scales[n] = 0.25F * static_cast<float>(n) + 0.5F;
  const std::vector<Logit> before(student.data(), student.data() + student.size());
  // Entries: tokens that lie apart, the last among them; of the second row there is one less.
  const auto entries = static_cast<size_t>(c.entries);
  Buffer<int32_t> ids(row_count * entries, -1);
  Buffer<float> log_p(ids.size(), NAN), log_tails(row_count, -INFINITY);
  const auto teachers_row = [&](size_t n) {
    Doubles logits;
    for (int v = 0; v < c.width; ++v) logits.push_back(capped(to_float(teacher[n * static_cast<size_t>(stride) + static_cast<size_t>(v)]), c.teacher_softcap) / c.temperature);
    return log_softmax(logits);
  };
  for (size_t n = 0; n < row_count && entries > 0; ++n) {
    const auto all = teachers_row(n);
    double rest = c.tail ? 1 : 0, sum = 0;
    for (size_t k = 0; k < entries - (n == 1 && entries > 1 ? 1 : 0); ++k) {
      const size_t id = all.size() - 1 - k * (all.size() / entries);
      ids[n * entries + k] = static_cast<int32_t>(id);
      log_p[n * entries + k] = static_cast<float>(all[id]);
      sum += std::exp(all[id]);
    }
    if (c.tail) log_tails[n] = static_cast<float>(std::log(rest - sum));
    for (size_t k = 0; !c.tail && k < entries; ++k) log_p[n * entries + k] -= static_cast<float>(std::log(sum));
  }
  const LogitRows rows{student.data(), stride, c.width, c.softcap, kType<Logit, Gradient>};
  const KlProblem problem{rows, c.gradient ? scales.data() : nullptr, losses.data(), c.rows, kind, c.temperature, 1 / c.temperature, static_cast<float>(c.mixture.teacher_weight), static_cast<float>(c.mixture.teacher_part),
                          static_cast<float>(c.mixture.slope())};
  if (entries > 0) {
    ASSERT_EQ(launch(SparseKlRows{problem, ids.data(), log_p.data(), log_tails.data(), c.entries}, nullptr), nullptr);
  } else {
    const LogitRows teachers{teacher.data(), stride, c.width, c.teacher_softcap, kType<Logit, Gradient>};
    ASSERT_EQ(launch(KlRows{problem, teachers}, nullptr), nullptr);
  }

  const double tolerance = sizeof(Gradient) == 4 ? 4e-6 : 4e-3;
  for (size_t n = 0; n < row_count; ++n) {
    Doubles logits, slopes;
    for (size_t v = 0; v < static_cast<size_t>(c.width); ++v) {
      const double value = capped(to_float(before[n * static_cast<size_t>(stride) + v]), c.softcap);
      logits.push_back(value / c.temperature);
      slopes.push_back(c.softcap > 0 ? 1 - std::pow(value / c.softcap, 2) : 1);
    }
    const auto log_q = log_softmax(logits);
    Doubles gradient, outcome_gradient;
    double loss = 0;
    if (entries == 0) {
      loss = expected(kind, c.mixture, teachers_row(n), log_q, gradient);
    } else {
      Doubles p, q;
      double rest = 0;
      std::vector<int> place(log_q.size(), -1);
      for (size_t k = 0; k < entries; ++k) {
        const int id = ids[n * entries + k];
        if (id < 0) continue;
        place[static_cast<size_t>(id)] = static_cast<int>(p.size());
        p.push_back(log_p[n * entries + k]);
        q.push_back(log_q[static_cast<size_t>(id)]);
      }
      for (size_t v = 0; v < log_q.size(); ++v) rest += place[v] < 0 ? std::exp(log_q[v]) : 0;
      p.push_back(log_tails[n]);
      q.push_back(std::log(rest));
      loss = expected(kind, c.mixture, p, q, outcome_gradient);
      for (size_t v = 0; v < log_q.size(); ++v) {
        gradient.push_back(place[v] >= 0 ? outcome_gradient[static_cast<size_t>(place[v])] : outcome_gradient.back() * std::exp(log_q[v]) / rest);
      }
    }
    EXPECT_NEAR(losses[n], loss, 4e-6 * (1 + std::abs(loss))) << "row " << n;
    if (!c.gradient) continue;
    const auto* got = reinterpret_cast<const Gradient*>(student.data() + n * static_cast<size_t>(stride));
    double error = 0, size = 0;
    for (size_t v = 0; v < log_q.size(); ++v) {
      const double wanted = gradient[v] * slopes[v] * scales[n];
      error += std::pow(to_float(got[v]) - wanted, 2);
      size += wanted * wanted;
    }
    EXPECT_LE(std::sqrt(error), tolerance * (std::sqrt(size) + 0.3)) << "row " << n;
  }
  for (size_t i = 0; i < student.size(); ++i) {
    if (static_cast<int64_t>(i) % stride >= c.width) {
      EXPECT_EQ(to_float(student[i]), to_float(before[i])) << "not the kernel's to write";
    }
  }
}

template <typename Types>
class KlRowsCuda : public testing::Test {
 protected:
  static void check(const Case& c, bool reverse = true) {
    for (const auto kind : {Divergence::kForwardKl, Divergence::kReverseKl, Divergence::kMixture}) {
      if (reverse || kind != Divergence::kReverseKl) cuda::check<typename Types::first_type, typename Types::second_type>(kind, c);
    }
  }
};
using RowTypes = testing::Types<std::pair<float, float>, std::pair<float, Bfloat16>, std::pair<Bfloat16, Bfloat16>>;
TYPED_TEST_SUITE(KlRowsCuda, RowTypes);

TYPED_TEST(KlRowsCuda, Widths) {
  for (const int width : {1, 3, 8, 9, 1000, 1023, 1024, 1029, 2051}) this->check({.width = width});
}
TYPED_TEST(KlRowsCuda, OneRowAndNone) {
  this->check({.rows = 1});
  this->check({.rows = 0});
  this->check({.rows = 0, .entries = 3});
}
TYPED_TEST(KlRowsCuda, WithoutGradient) {
  this->check({.softcap = 2, .gradient = false});
  this->check({.softcap = 2, .gradient = false, .entries = 7});
}
TYPED_TEST(KlRowsCuda, SoftCapsAndTemperature) {
  this->check({.width = 1501, .softcap = 4});
  this->check({.width = 1501, .teacher_softcap = 2});
  this->check({.width = 1501, .temperature = 2.5F});
  this->check({.width = 1501, .softcap = 5, .teacher_softcap = 3, .temperature = 0.7F, .mixture = jensen_shannon(0.9)});
}
TYPED_TEST(KlRowsCuda, SkewedMixtures) {
  for (const auto& mixture : {skewed_forward_kl(0.1), skewed_reverse_kl(0.1), Mixture{0.7, 0.2}}) {
    this->check({.width = 1501, .softcap = 5, .temperature = 0.7F, .mixture = mixture});
    this->check({.width = 1029, .mixture = mixture, .entries = 20});
    this->check({.width = 1029, .mixture = mixture, .impossible = 3}, false);
  }
}
TYPED_TEST(KlRowsCuda, TokensThatAreNotTheTeachers) { this->check({.width = 1029, .impossible = 3}, false); }
TYPED_TEST(KlRowsCuda, Entries) {
  for (const int entries : {1, 2, 50, 300}) this->check({.width = 1029, .entries = entries});
  this->check({.rows = 1, .width = 2051, .entries = kMostSparseEntries});
  this->check({.width = 2051, .softcap = 4, .temperature = 1.5F, .mixture = jensen_shannon(0.7), .entries = 17});
}
TYPED_TEST(KlRowsCuda, EntriesWithoutARest) { this->check({.width = 1029, .entries = 20, .tail = false}, false); }
TYPED_TEST(KlRowsCuda, AllTokensAreEntries) { this->check({.rows = 1, .width = 37, .entries = 37, .tail = false}); }

TEST(KlRowsCuda, RefusesWhatItCannotRead) {
  Buffer<float> logits(64);
  const LogitRows good{logits.data(), 16, 10, 0, LogitType::kFloat32};
  LogitRows narrow = good, crooked = good;
  narrow.width = 9;
  crooked.stride = 12;
  const auto problem = [](const LogitRows& student) { return KlProblem{student, nullptr, nullptr, 1, Divergence::kForwardKl, 1, 1}; };
  EXPECT_NE(launch(KlRows{problem(good), narrow}, nullptr), nullptr);
  EXPECT_NE(launch(KlRows{problem(good), crooked}, nullptr), nullptr);
  EXPECT_NE(launch(KlRows{problem(crooked), good}, nullptr), nullptr);
  EXPECT_NE(launch(SparseKlRows{problem(crooked), nullptr, nullptr, nullptr, 1}, nullptr), nullptr);
  for (const int entries : {0, kMostSparseEntries + 1}) EXPECT_NE(launch(SparseKlRows{problem(good), nullptr, nullptr, nullptr, entries}, nullptr), nullptr);
}

}  // namespace
}  // namespace graft::cuda
