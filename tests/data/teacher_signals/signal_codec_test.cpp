// Teachers' signals in bits and back: exactly where it must be exact, within the rounding elsewhere, in the bytes that were promised.
#include "data/teacher_signals/signal_codec.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/common/error.h"

namespace graft {
namespace {

using Kind = SignalForm::Kind;

// Log-probabilities of a vocabulary in which a share `confidence` falls on one token and the rest as 1 / rank^power.
std::vector<double> distribution(int64_t vocab, double confidence, double power, std::mt19937_64& chance) {
  std::vector<int64_t> rank(static_cast<size_t>(vocab));
  std::iota(rank.begin(), rank.end(), 1);
  std::shuffle(rank.begin(), rank.end(), chance);
  std::vector<double> p(rank.size());
  for (size_t i = 0; i < p.size(); ++i) p[i] = rank[i] == 1 ? 0 : std::pow(static_cast<double>(rank[i]), -power);
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (size_t i = 0; i < p.size(); ++i) p[i] = rank[i] == 1 ? confidence : p[i] / sum * (1 - confidence);
  return p;
}

std::vector<int32_t> likeliest(const std::vector<double>& p, int64_t k) {
  std::vector<int32_t> ids(p.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::partial_sort(ids.begin(), ids.begin() + k, ids.end(), [&](int32_t a, int32_t b) { return p[a] > p[b]; });
  ids.resize(static_cast<size_t>(k));
  return ids;
}

double add_top(SignalEncoder& encoder, const std::vector<double>& p, const std::vector<int32_t>& ids) {
  std::vector<float> values;
  double mass = 0;
  for (const auto id : ids) values.push_back(static_cast<float>(std::log(p[id]))), mass += p[id];
  encoder.add_top(ids, values, std::max(0.0, 1 - mass));
  return 1 - mass;
}

TEST(SignalCodec, KeepsTheLikeliestAndTheRest) {
  std::mt19937_64 chance(1);
  for (const double confidence : {0.02, 0.5, 0.97, 1 - 1e-7}) {
    const SignalForm form{Kind::kTop, 64, 151936};
    SignalEncoder encoder(form);
    const auto p = distribution(form.vocab_size, confidence, 1.1, chance);
    const auto ids = likeliest(p, form.num_entries);
    const double tail = add_top(encoder, p, ids);
    const auto bytes = encoder.take();
    EXPECT_LE(bytes.size(), 200u);
    SignalRows rows;
    decode_signals(form, bytes, 1, "test", rows);
    EXPECT_TRUE(std::is_sorted(rows.ids_MK.begin(), rows.ids_MK.end()));
    EXPECT_THAT(rows.ids_MK, testing::UnorderedElementsAreArray(ids));
    EXPECT_NEAR(rows.tail_mass_M[0], tail, 2e-4 * tail + 1e-10);
    double sum = rows.tail_mass_M[0], divergence = 0;
    for (int64_t i = 0; i < form.num_entries; ++i) {
      const double was = p[rows.ids_MK[i]], is = std::exp(rows.log_probabilities_MK[i]);
      sum += is;
      divergence += was * std::log(was / is);
      EXPECT_NEAR(is, was, 0.06 * was + 1e-9) << confidence;
    }
    EXPECT_NEAR(sum, 1, 1e-6);
    EXPECT_LT(std::abs(divergence), 3e-4) << confidence;
  }
}

TEST(SignalCodec, KeepsEveryDraw) {
  std::mt19937_64 chance(2);
  const SignalForm form{Kind::kDrawn, 50, 151936};
  SignalEncoder encoder(form);
  std::vector<std::map<int32_t, int>> counts;
  for (const double confidence : {0.01, 0.6, 0.999}) {
    for (int token = 0; token < 20; ++token) {
      std::vector<int32_t> draws;
      for (int64_t i = 0; i < form.num_entries; ++i)
        draws.push_back(std::uniform_real_distribution(0.0, 1.0)(chance) < confidence ? 7 : static_cast<int32_t>(chance() % static_cast<uint64_t>(form.vocab_size)));
      encoder.add_drawn(draws);
      counts.emplace_back();
      for (const auto id : draws) ++counts.back()[id];
    }
  }
  const auto bytes = encoder.take();
  SignalRows rows;
  decode_signals(form, bytes, static_cast<int64_t>(counts.size()), "test", rows);
  for (size_t token = 0; token < counts.size(); ++token) {
    std::map<int32_t, int> found;
    for (int64_t i = 0; i < form.num_entries; ++i) {
      const auto id = rows.ids_MK[token * 50 + i];
      if (id >= 0) found[id] = static_cast<int>(std::lround(50 * std::exp(rows.log_probabilities_MK[token * 50 + i])));
      else EXPECT_EQ(rows.log_probabilities_MK[token * 50 + i], -std::numeric_limits<float>::infinity());
    }
    EXPECT_EQ(found, counts[token]);
    EXPECT_EQ(rows.tail_mass_M[token], 0);
  }
}

// 50 draws of a fine-tuned teacher, whose answers are sure but for a few words: mean entropy about 1 nat.
TEST(SignalCodec, TakesFewBytes) {
  std::mt19937_64 chance(3);
  const SignalForm form{Kind::kDrawn, 50, 151936};
  SignalEncoder encoder(form);
  double entropy = 0;
  constexpr int kTokens = 40;
  for (int token = 0; token < kTokens; ++token) {
    const auto p = distribution(form.vocab_size, token % 4 == 0 ? 0.4 : 0.9, 1.6, chance);
    for (const double value : p) entropy -= value > 0 ? value * std::log(value) / kTokens : 0;
    std::discrete_distribution<int32_t> draw(p.begin(), p.end());
    std::vector<int32_t> draws(static_cast<size_t>(form.num_entries));
    for (auto& id : draws) id = draw(chance);
    encoder.add_drawn(draws);
  }
  const double bytes = static_cast<double>(encoder.take().size()) / kTokens;
  RecordProperty("bytes_a_token", std::to_string(bytes));
  std::cout << bytes << " bytes a token at an entropy of " << entropy << " nats\n";
  EXPECT_LE(bytes, 36);
  EXPECT_GT(entropy, 0.5);
}

TEST(SignalCodec, SmallVocabulariesAndSingleEntries) {
  for (const int64_t vocab : {2, 3, 64, 300}) {
    const SignalForm one{Kind::kDrawn, 1, vocab}, top{Kind::kTop, 1, vocab};
    SignalEncoder drawn(one), likely(top);
    for (int32_t id = 0; id < vocab; ++id) {
      drawn.add_drawn(std::vector<int32_t>{id});
      likely.add_top(std::vector<int32_t>{id}, std::vector<float>{std::log(0.75f)}, 0.25);
    }
    SignalRows of_draws, of_top;
    decode_signals(one, drawn.take(), vocab, "test", of_draws);
    decode_signals(top, likely.take(), vocab, "test", of_top);
    for (int32_t id = 0; id < vocab; ++id) {
      EXPECT_EQ(of_draws.ids_MK[id], id);
      EXPECT_EQ(of_draws.log_probabilities_MK[id], 0);
      EXPECT_EQ(of_top.ids_MK[id], id);
      EXPECT_NEAR(std::exp(of_top.log_probabilities_MK[id]), 0.75, 1e-4);
    }
  }
}

TEST(SignalCodec, DamagedBytesAreOneError) {
  std::mt19937_64 chance(4);
  for (const auto& form : {SignalForm{Kind::kDrawn, 50, 1000}, SignalForm{Kind::kTop, 8, 1000}}) {
    SignalEncoder encoder(form);
    for (int token = 0; token < 5; ++token) {
      const auto p = distribution(form.vocab_size, 0.5, 1.2, chance);
      if (form.kind == Kind::kTop) {
        add_top(encoder, p, likeliest(p, form.num_entries));
      } else {
        std::discrete_distribution<int32_t> draw(p.begin(), p.end());
        std::vector<int32_t> draws(static_cast<size_t>(form.num_entries));
        for (auto& id : draws) id = draw(chance);
        encoder.add_drawn(draws);
      }
    }
    const auto bytes = encoder.take();
    SignalRows rows;
    EXPECT_NO_THROW(decode_signals(form, bytes, 5, "part-00001.h5, row 3", rows));
    for (size_t size = 0; size < bytes.size(); ++size) EXPECT_THROW(decode_signals(form, std::span(bytes).first(size), 5, "cut", rows), UserError);
    auto longer = bytes;
    longer.push_back(std::byte{0});
    EXPECT_THROW(decode_signals(form, longer, 5, "longer", rows), UserError);
    for (int change = 0; change < 2000; ++change) {   // some are other valid signals; none reads or writes elsewhere (ASan)
      auto changed = bytes;
      changed[chance() % changed.size()] ^= static_cast<std::byte>(1 << chance() % 8);
      SignalRows some;
      try {
        decode_signals(form, changed, 5, "changed", some);
        for (const auto id : some.ids_MK) ASSERT_TRUE(id >= -1 && id < form.vocab_size);
      } catch (const UserError&) {
      }
    }
  }
}

TEST(SignalCodec, RefusesWhatIsNoDistribution) {
  SignalEncoder top({Kind::kTop, 2, 10}), drawn({Kind::kDrawn, 3, 10});
  EXPECT_THROW(top.add_top(std::vector<int32_t>{1, 1}, std::vector<float>{-1, -1}, 0.26), UserError);
  EXPECT_THROW(top.add_top(std::vector<int32_t>{1, 10}, std::vector<float>{-1, -1}, 0.26), UserError);
  EXPECT_THROW(top.add_top(std::vector<int32_t>{1, 2}, std::vector<float>{-1, -1}, 0.5), UserError);
  EXPECT_THROW(top.add_top(std::vector<int32_t>{1}, std::vector<float>{0}, 0), UserError);
  EXPECT_THROW(drawn.add_drawn(std::vector<int32_t>{1, 2}), UserError);
  EXPECT_THROW(drawn.add_drawn(std::vector<int32_t>{1, 2, -1}), UserError);
}

}  // namespace
}  // namespace graft
