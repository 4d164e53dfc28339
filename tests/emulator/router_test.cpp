// A router's choices and the lists of every expert's rows, compiled for the CPU, against plain loops.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "kernels/cuda/device.cuh"
#include "kernels/router/expert_lists.cuh"
#include "kernels/router/router.cuh"
#include "tests/emulator/buffer.h"
#include "tests/emulator/case_names.h"

namespace graft::cuda {
namespace {

using emulator::Buffer;
using Score = RouterForward::Score;
using GroupScore = RouterForward::GroupScore;

struct RouterCase {
  int tokens = 9, experts = 40, chosen = 3;
  Score score = Score::kSoftmax;
  bool selection_bias = false, expert_scale = false;
  int groups = 1, groups_per_token = 1;
  GroupScore group_score = GroupScore::kTwoBest;
  bool one_per_group = false, renormalise = false;
  float smallest_sum = 0, scale = 1;
  float spread = 2, mean = 0;   // of logits
};

const std::map<std::string, RouterCase>& cases() {
  static const std::map<std::string, RouterCase> cases = {
      {"mixtral", {.experts = 8, .chosen = 2, .renormalise = true}},
      {"qwen3", {.tokens = 13, .experts = 128, .chosen = 8, .renormalise = true}},
      {"one_more_expert_than_slots", {.experts = 129, .chosen = 5}},
      {"qwen3_next", {.tokens = 5, .experts = 512, .chosen = 10, .renormalise = true}},
      {"most_experts", {.tokens = 2, .experts = 1024, .chosen = 32, .score = Score::kSigmoid}},
      {"all_experts", {.experts = 7, .chosen = 7, .score = Score::kSoftmax, .scale = 2}},
      {"one_expert", {.tokens = 3, .experts = 1, .chosen = 1}},
      {"deepseek_v2", {.tokens = 12, .experts = 160, .chosen = 6, .groups = 8, .groups_per_token = 3, .group_score = GroupScore::kBest, .scale = 16}},
      {"deepseek_v3", {.tokens = 12, .experts = 256, .chosen = 8, .score = Score::kSigmoid, .selection_bias = true, .groups = 8, .groups_per_token = 4, .renormalise = true, .smallest_sum = 1e-20F, .scale = 2.5F}},
      {"groups_of_one", {.experts = 32, .chosen = 4, .score = Score::kSigmoid, .groups = 32, .groups_per_token = 5}},
      {"odd_groups", {.experts = 33, .chosen = 4, .score = Score::kSoftmax, .selection_bias = true, .groups = 11, .groups_per_token = 2}},
      {"ernie", {.experts = 64, .chosen = 6, .selection_bias = true, .renormalise = true, .smallest_sum = 1e-12F}},
      {"pangu_pro", {.experts = 64, .chosen = 8, .expert_scale = true, .groups = 8, .groups_per_token = 8, .one_per_group = true}},
      {"gpt_oss", {.experts = 32, .chosen = 4, .score = Score::kSoftmaxOfChosen}},
      {"gpt_oss_large_logits", {.experts = 32, .chosen = 4, .score = Score::kSoftmaxOfChosen, .scale = 3, .spread = 60}},
      {"deepseek_v4", {.experts = 256, .chosen = 6, .score = Score::kSquareRootSoftplus, .selection_bias = true, .renormalise = true, .smallest_sum = 1e-20F, .scale = 1.5F, .spread = 12}},
      {"small_scores", {.chosen = 5, .score = Score::kSquareRootSoftplus, .scale = 2, .mean = -9}},
      {"gemma", {.experts = 20, .chosen = 4, .expert_scale = true, .renormalise = true}},
      {"a_sum_below_the_smallest", {.experts = 24, .chosen = 2, .score = Score::kSigmoid, .renormalise = true, .smallest_sum = 3}},
      {"no_tokens", {.tokens = 0}},
  };
  return cases;
}

double score_of(const RouterCase& c, double logit, double sum) {
  switch (c.score) {
    case Score::kSoftmax: return std::exp(logit) / sum;
    case Score::kSigmoid: return 1 / (1 + std::exp(-logit));
    case Score::kSquareRootSoftplus: return std::sqrt(std::log1p(std::exp(logit)));
    default: return logit;
  }
}

struct Choice {
  std::vector<int64_t> experts;
  std::vector<double> weights;
};
Choice expected_choice(const RouterCase& c, const float* logits, const Buffer<float>& bias, const Buffer<float>& scale) {
  double sum = 0;
  for (int e = 0; e < c.experts; ++e) sum += std::exp(static_cast<double>(logits[e]));
  const auto all = static_cast<size_t>(c.experts), size = all / static_cast<size_t>(c.groups);
  std::vector<double> scores(all), choices(all);
  for (size_t e = 0; e < all; ++e) {
    scores[e] = score_of(c, logits[e], sum);
    choices[e] = scores[e] + (c.selection_bias ? bias[e] : 0);
  }
  const auto sorted = [&](size_t begin, size_t end, const std::vector<double>& by) {
    std::vector<size_t> order(end - begin);
    std::iota(order.begin(), order.end(), begin);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return by[a] > by[b]; });
    return order;
  };
  Choice choice;
  if (c.one_per_group) {
    for (size_t g = 0; g < static_cast<size_t>(c.groups); ++g) choice.experts.push_back(static_cast<int64_t>(sorted(g * size, (g + 1) * size, choices)[0]));
  } else {
    std::vector<double> of_groups(static_cast<size_t>(c.groups));
    for (size_t g = 0; g < of_groups.size(); ++g) {
      const auto best = sorted(g * size, (g + 1) * size, choices);
      of_groups[g] = choices[best[0]] + (c.group_score == GroupScore::kTwoBest && size > 1 ? choices[best[1]] : 0);
    }
    const auto best_groups = sorted(0, of_groups.size(), of_groups);
    for (size_t e = 0; e < all; ++e) {
      if (std::find(best_groups.begin(), best_groups.begin() + c.groups_per_token, e / size) == best_groups.begin() + c.groups_per_token) choices[e] = -1e300;
    }
    for (const auto e : sorted(0, all, choices)) {
      if (choice.experts.size() < static_cast<size_t>(c.chosen)) choice.experts.push_back(static_cast<int64_t>(e));
    }
  }
  double of_chosen = 0;
  for (const auto e : choice.experts) {
    choice.weights.push_back(c.score == Score::kSoftmaxOfChosen ? std::exp(static_cast<double>(logits[e])) : scores[static_cast<size_t>(e)]);
    of_chosen += choice.weights.back();
  }
  for (size_t k = 0; k < choice.weights.size(); ++k) {
    if (c.score == Score::kSoftmaxOfChosen) choice.weights[k] /= of_chosen;
    else if (c.renormalise) choice.weights[k] /= std::max<double>(of_chosen, c.smallest_sum);
    choice.weights[k] *= c.scale * (c.expert_scale ? scale[static_cast<size_t>(choice.experts[k])] : 1.0F);
  }
  return choice;
}

RouterForward arguments_of(const RouterCase& c, const Buffer<float>& logits, const Buffer<float>& bias, const Buffer<float>& scale, Buffer<int64_t>& chosen, Buffer<float>& weights) {
  return {logits.data(), c.selection_bias ? bias.data() : nullptr, c.expert_scale ? scale.data() : nullptr, c.tokens, c.experts, c.chosen, c.score, c.groups, c.groups_per_token,
          c.group_score, c.one_per_group, c.renormalise, c.smallest_sum, c.scale, chosen.data(), weights.data()};
}

class Router : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Cuda, Router, testing::ValuesIn(emulator::names_of(cases())), [](const auto& info) { return info.param; });

TEST_P(Router, ChoosesAsLoopsDo) {
  const auto& c = cases().at(GetParam());
  const auto tokens = static_cast<size_t>(c.tokens), experts = static_cast<size_t>(c.experts), chosen = static_cast<size_t>(c.chosen);
  std::mt19937 random(11);
  std::normal_distribution<float> normal(c.mean, c.spread), small(0, 0.3F);
  Buffer<float> logits(tokens * experts), bias(experts), scale(experts), weights(tokens * chosen, NAN);
  Buffer<int64_t> indices(tokens * chosen, -7);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = normal(random);
  for (size_t e = 0; e < experts; ++e) bias[e] = small(random), scale[e] = 1 + small(random);
  ASSERT_EQ(launch(arguments_of(c, logits, bias, scale, indices, weights), nullptr), nullptr);
  for (size_t n = 0; n < tokens; ++n) {
    const auto expected = expected_choice(c, logits.data() + n * experts, bias, scale);
    ASSERT_EQ(expected.experts.size(), chosen);
    for (size_t k = 0; k < chosen; ++k) {
      ASSERT_EQ(indices[n * chosen + k], expected.experts[k]) << "token " << n << " choice " << k;
      ASSERT_NEAR(weights[n * chosen + k], expected.weights[k], 3e-6 * expected.weights[k] + 1e-38) << "token " << n << " choice " << k;
    }
  }
}

// Of equal scores the first; one that is no number comes first of all and shows in the weights; infinite ones are chosen last. No expert comes twice.
TEST(Router, ChoosesWhateverTheScores) {
  RouterCase c = {.tokens = 4, .experts = 6, .chosen = 4, .score = Score::kSigmoid};
  const float most = INFINITY;
  Buffer<float> logits({1, 1, 1, 1, 1, 1, /**/ 0, NAN, 2, 3, NAN, 1, /**/ -most, 5, -most, -most, most, -most, /**/ 1, -1, 0, -0.0F, 2, -2}), none(6), weights(16);
  Buffer<int64_t> chosen(16);
  ASSERT_EQ(launch(arguments_of(c, logits, none, none, chosen, weights), nullptr), nullptr);
  const std::vector<int64_t> expected = {0, 1, 2, 3, 1, 4, 3, 2, 4, 1, 0, 2, 4, 0, 2, 3};
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(chosen[i], expected[i]) << i;
  EXPECT_TRUE(std::isnan(weights[4]) && std::isnan(weights[5]) && !std::isnan(weights[6]));
  EXPECT_EQ(weights[8], 1);
  EXPECT_EQ(weights[11], 0);

  c.score = Score::kSoftmax;   // here one such score spoils all
  ASSERT_EQ(launch(arguments_of(c, logits, none, none, chosen, weights), nullptr), nullptr);
  for (size_t k = 4; k < 8; ++k) EXPECT_TRUE(chosen[k] == static_cast<int64_t>(k - 4) && std::isnan(weights[k])) << k;
}

TEST(Router, RefusesMoreExpertsThanItHas) {
  RouterForward arguments = {};
  arguments.num_experts = kMostRoutedExperts + 1;
  EXPECT_STREQ(launch(arguments, nullptr), "no router kernel for so many experts");
  ExpertLists lists = {};
  lists.rows.num_experts = kMostListedExperts + 1;
  EXPECT_STREQ(launch(lists, nullptr), "no lists for so many experts");
}

// Every list against a stable sort.
void check_lists(const std::vector<int64_t>& chosen, int64_t tokens, int choices, int experts, int tile_rows) {
  ASSERT_EQ(static_cast<int64_t>(chosen.size()), tokens * choices);
  const size_t total = chosen.size();
  ExpertLists lists = {};
  auto& rows = lists.rows;
  rows.num_tokens = tokens;
  rows.choices = choices;
  rows.num_experts = experts;
  rows.tile_rows = tile_rows;
  rows.num_tiles = static_cast<int>(most_pieces(tokens * choices, experts, tile_rows));
  rows.num_spans = static_cast<int>(most_pieces(tokens * choices, experts, kExpertSpan));
  const Buffer<int64_t> given(chosen);
  Buffer<int32_t> order(total, -5), place(total, -5), first_span(static_cast<size_t>(experts) + 1, -5), counts(static_cast<size_t>(list_chunks(tokens * choices) * experts), -5);
  Buffer<ExpertPiece> tiles(static_cast<size_t>(rows.num_tiles), {-5, -5, -5, -5}), spans(static_cast<size_t>(rows.num_spans), {-5, -5, -5, -5});
  rows.chosen_NK = given.data();
  rows.order_M = order.data();
  rows.place_NK = place.data();
  rows.tiles = tiles.data();
  rows.spans = spans.data();
  rows.first_span_E1 = first_span.data();
  lists.counts = counts.data();
  ASSERT_EQ(launch(lists, nullptr), nullptr);

  int32_t row = 0;
  size_t tile = 0, span = 0;
  const auto expect_pieces = [](const Buffer<ExpertPiece>& pieces, size_t& piece, int expert, int first, int end, int most) {
    for (; first < end; first += most, ++piece) {
      ASSERT_LT(piece, pieces.size());
      ASSERT_EQ(pieces[piece].expert, expert);
      ASSERT_EQ(pieces[piece].first, first);
      ASSERT_EQ(pieces[piece].rows, std::min(most, end - first));
    }
  };
  for (int expert = 0; expert < experts; ++expert) {
    const int32_t first = row;
    for (size_t i = 0; i < total; ++i) {
      if (chosen[i] != expert) continue;
      ASSERT_EQ(order[static_cast<size_t>(row)], static_cast<int32_t>(i)) << "row " << row;
      ASSERT_EQ(place[i], row) << "choice " << i;
      ++row;
    }
    ASSERT_EQ(first_span[static_cast<size_t>(expert)], static_cast<int32_t>(span));
    expect_pieces(tiles, tile, expert, first, row, tile_rows);
    expect_pieces(spans, span, expert, first, row, kExpertSpan);
  }
  ASSERT_EQ(first_span[static_cast<size_t>(experts)], static_cast<int32_t>(span));
  for (; tile < tiles.size(); ++tile) ASSERT_EQ(tiles[tile].expert, -1);
  for (; span < spans.size(); ++span) ASSERT_EQ(spans[span].expert, -1);
  for (size_t i = 0; i < total; ++i) {
    if (chosen[i] >= 0 && chosen[i] < experts) continue;
    ASSERT_EQ(place[i], -1) << "choice " << i;
  }
}

std::vector<int64_t> random_choices(int64_t tokens, int choices, int experts, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int64_t> all(static_cast<size_t>(experts)), chosen;
  std::iota(all.begin(), all.end(), 0);
  for (int64_t n = 0; n < tokens; ++n) {
    std::shuffle(all.begin(), all.end(), random);
    chosen.insert(chosen.end(), all.begin(), all.begin() + choices);
  }
  return chosen;
}

TEST(ExpertLists, SortChoicesByExpertThenToken) { check_lists(random_choices(700, 3, 17, 1), 700, 3, 17, 64); }
TEST(ExpertLists, OfMoreExpertsThanThreads) { check_lists(random_choices(90, 13, 600, 2), 90, 13, 600, 64); }
TEST(ExpertLists, OfTheMostExperts) { check_lists(random_choices(33, 32, kMostListedExperts, 3), 33, 32, kMostListedExperts, 128); }
TEST(ExpertLists, OfOneExpertThatHasAll) { check_lists(std::vector<int64_t>(4100, 3), 4100, 1, 6, 128); }
TEST(ExpertLists, OfOneToken) { check_lists({4, 0}, 1, 2, 5, 64); }
TEST(ExpertLists, OfNoTokens) { check_lists({}, 0, 2, 5, 64); }
TEST(ExpertLists, LeaveOutWhatIsNoExpert) { check_lists({4, 0, -1, 3, 5, 4, int64_t{1} << 32, 1}, 4, 2, 5, 64); }
TEST(ExpertLists, LeaveOutWhatIsNoExpertInEveryChunk) {
  auto chosen = random_choices(kListChunk + 50, 2, 7, 4);
  chosen[3] = 7;
  chosen[kListChunk + 9] = -2;
  chosen[2 * kListChunk + 40] = 1 << 20;
  check_lists(chosen, kListChunk + 50, 2, 7, 64);
}
TEST(ExpertLists, WithWholePieces) { check_lists(std::vector<int64_t>(2 * kExpertSpan, 1), 2 * kExpertSpan, 1, 3, 64); }

TEST(ExpertLists, HaveRoomForEveryRouting) {
  EXPECT_EQ(most_pieces(0, 5, 64), 0);
  EXPECT_EQ(most_pieces(3, 5, 64), 3);
  EXPECT_EQ(most_pieces(1000, 5, 64), 20);
}

}  // namespace
}  // namespace graft::cuda
