#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/relative_error.h"
#include "tests/trainer/torch/generation_tiny_model.h"
#include "trainer/generation/generator.h"

namespace graft {
namespace {

using test::TinyModel;

std::vector<int32_t> random_ids(uint64_t row, size_t count, int32_t vocab = 256) {
  std::vector<int32_t> ids(count);
  for (size_t i = 0; i < count; ++i) ids[i] = static_cast<int32_t>(counter_uniform(3, row, i) * vocab);
  return ids;
}

// Normed hidden states of whole documents in one packed forward: the specification.
at::Tensor packed_hidden(const Decoder& decoder, const std::vector<std::vector<int32_t>>& documents) {
  Batch batch;
  for (const auto& document : documents) batch.add_document(document);
  return decoder.forward(batch);
}

class EveryFamily : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Generation, EveryFamily, testing::ValuesIn(test::every_family()));

TEST_P(EveryFamily, PrefillAndTokenByTokenIsOnePackedForward) {
  const TinyModel model(GetParam());
  const auto ids = random_ids(0, 40);
  SequenceBatch batch(*model.decoder);
  const std::vector<std::vector<int32_t>> prompts = {{ids.begin(), ids.begin() + 17}};
  std::vector<at::Tensor> parts = {batch.start(prompts)};
  for (size_t i = 17; i < ids.size(); ++i) parts.push_back(batch.extend(std::vector<std::vector<int32_t>>{{ids[i]}}, Keep::kLast));
  const auto expected = head_logits(packed_hidden(*model.decoder, {ids}).narrow(0, 16, 24), model.decoder->head());
  EXPECT_LE(relative_error(head_logits(at::cat(parts), model.decoder->head()), expected), 1e-5);
}

TEST_P(EveryFamily, SequencesOfDifferentLengthWithACommonPrefixAreIndependent) {
  const TinyModel model(GetParam());
  const auto prefix = random_ids(1, 9);
  std::vector<std::vector<int32_t>> documents;
  for (size_t d = 0; d < 4; ++d) {
    documents.push_back(prefix);
    const auto own = random_ids(10 + d, 1 + 5 * d);
    documents.back().insert(documents.back().end(), own.begin(), own.end());
  }
  SequenceBatch batch(*model.decoder);
  const auto first = batch.start(documents);
  const std::vector<std::vector<int32_t>> more = {{5, 6, 7}, {}, {8}, {9, 10}};
  const auto second = batch.extend(more, Keep::kAll);
  std::vector<at::Tensor> expected_first, expected_second;
  for (size_t d = 0; d < documents.size(); ++d) {
    auto whole = documents[d];
    whole.insert(whole.end(), more[d].begin(), more[d].end());
    const auto hidden = packed_hidden(*model.decoder, {whole});
    const auto prompt = static_cast<int64_t>(documents[d].size());
    expected_first.push_back(hidden.narrow(0, prompt - 1, 1));
    expected_second.push_back(hidden.narrow(0, prompt, hidden.size(0) - prompt));
  }
  EXPECT_LE(relative_error(first, at::cat(expected_first)), 1e-5);
  EXPECT_LE(relative_error(second, at::cat(expected_second)), 1e-5);
}

// A decoder with a recurrent state reads again what is left, from the prompt's end or from the beginning.
TEST(SequenceBatch, CutBackAndReadAgainGivesTheSame) {
  for (const auto* family : {"llama", "qwen3_next", "qwen3_5_text", "kimi_linear"}) {
    SCOPED_TRACE(family);
    const TinyModel model(family);
    const auto ids = random_ids(2, 30);
    SequenceBatch batch(*model.decoder);
    const auto whole = packed_hidden(*model.decoder, {ids});
    const auto from = [&](int64_t place) { return std::vector<std::vector<int32_t>>{{ids.begin() + place, ids.end()}}; };
    batch.start(std::vector<std::vector<int32_t>>{{ids.begin(), ids.begin() + 20}});
    batch.extend(std::vector<std::vector<int32_t>>{{1, 2, 3}}, Keep::kLast);
    for (const int64_t length : {20, 21, 14, 11, 11, 1}) {
      if (length == 21) batch.extend(std::vector<std::vector<int32_t>>{{ids[20], 4}}, Keep::kLast);
      batch.cut_back(0, length);
      EXPECT_EQ(batch.length(0), length);
      const auto again = batch.extend(from(length), Keep::kLast);
      EXPECT_LE(relative_error(again, whole.narrow(0, 29, 1)), 1e-5) << length;
      batch.cut_back(0, std::min<int64_t>(length, 20));
      EXPECT_EQ(batch.length(0), std::min<int64_t>(length, 20));
    }
  }
}

TEST(SequenceBatch, InputBeyondOneForwardIsReadInPieces) {
  const TinyModel model("llama");
  std::vector<std::vector<int32_t>> documents;
  for (size_t d = 0; d < 6; ++d) documents.push_back(random_ids(20 + d, 400 + 10 * d));
  SequenceBatch batch(*model.decoder);
  const auto hidden = batch.start(documents);
  std::vector<at::Tensor> expected;
  for (const auto& document : documents) expected.push_back(packed_hidden(*model.decoder, {document}).narrow(0, static_cast<int64_t>(document.size()) - 1, 1));
  EXPECT_LE(relative_error(hidden, at::cat(expected)), 1e-5);
}

TEST(SequenceBatch, AnEmptyPromptIsAnError) {
  const TinyModel model("llama");
  SequenceBatch batch(*model.decoder);
  EXPECT_THROW(batch.start(std::vector<std::vector<int32_t>>{{1}, {}}), UserError);
}

struct Answers : testing::Test {
  TinyModel model{"qwen3"};
  std::shared_ptr<test::ByteTokenizer> tokenizer = std::make_shared<test::ByteTokenizer>();
  std::vector<std::vector<int32_t>> prompts;
  GenerationOptions options;
  Answers() {
    for (size_t d = 0; d < 7; ++d) prompts.push_back(random_ids(40 + d, 3 + 4 * d));
    options.max_new_tokens = 20;
  }
};

TEST_F(Answers, GreedyIsTheHighestLogitOfAWholeForwardEachTime) {
  const auto answers = Generator(*model.decoder, tokenizer).generate(prompts, options);
  for (size_t d = 0; d < prompts.size(); ++d) {
    auto ids = prompts[d];
    std::vector<int32_t> expected;
    while (expected.size() < 20) {
      const auto hidden = packed_hidden(*model.decoder, {ids});
      const auto token = head_logits(hidden.narrow(0, hidden.size(0) - 1, 1), model.decoder->head()).argmax().item<int64_t>();
      if (token == test::ByteTokenizer::kEnd) break;
      expected.push_back(static_cast<int32_t>(token));
      ids.push_back(expected.back());
    }
    EXPECT_EQ(answers[d].ids, expected) << "prompt " << d;
    EXPECT_EQ(answers[d].stop, expected.size() == 20 ? StopReason::kMaxTokens : StopReason::kStopToken);
  }
}

TEST_F(Answers, BatchedIsSingleAndTheSeedDecides) {
  options.sampling.temperature = 1.3;
  options.sampling.top_p = 0.95;
  options.sampling.repetition_penalty = 1.1;
  options.sampling.seed = 5;
  const Generator generator(*model.decoder, tokenizer);
  const auto batched = generator.generate(prompts, options);
  options.batch_tokens = 60;   // several groups
  const auto grouped = generator.generate(prompts, options);
  bool seed_matters = false;
  for (size_t d = 0; d < prompts.size(); ++d) {
    auto alone = options;
    alone.first_row = d;
    const auto single = generator.generate(std::span(&prompts[d], 1), alone);
    EXPECT_EQ(single[0].ids, batched[d].ids);
    EXPECT_EQ(grouped[d].ids, batched[d].ids);
    alone.sampling.seed = 6;
    seed_matters |= generator.generate(std::span(&prompts[d], 1), alone)[0].ids != batched[d].ids;
  }
  EXPECT_TRUE(seed_matters);
}

TEST_F(Answers, StopTokensCallbacksAndTheContextEndAnAnswer) {
  const auto free = Generator(*model.decoder, tokenizer).generate(prompts, options);
  tokenizer->stop_ids = {free[0].ids.at(4)};   // whatever the model wrote fifth is a stop token now
  const auto place = std::find(free[0].ids.begin(), free[0].ids.end(), free[0].ids[4]) - free[0].ids.begin();
  const Generator generator(*model.decoder, tokenizer);
  const auto stopped = generator.generate(prompts, options)[0];
  EXPECT_EQ(stopped.stop, StopReason::kStopToken);
  EXPECT_EQ(stopped.stop_token, free[0].ids[4]);
  EXPECT_EQ(stopped.ids, std::vector<int32_t>(free[0].ids.begin(), free[0].ids.begin() + place));

  tokenizer->stop_ids.clear();
  std::vector<int32_t> seen;
  options.on_token = [&](size_t prompt, int32_t token) { return prompt != 0 || (seen.push_back(token), seen.size() < 3); };
  const auto cancelled = Generator(*model.decoder, tokenizer).generate(prompts, options)[0];
  EXPECT_EQ(cancelled.stop, StopReason::kCancelled);
  EXPECT_EQ(cancelled.ids, seen);
  EXPECT_EQ(seen.size(), 3u);

  options.on_token = nullptr;
  const std::vector<std::vector<int32_t>> full = {random_ids(9, 510)};
  tokenizer->eos_id.reset();
  const auto context_full = Generator(*model.decoder, tokenizer).generate(full, options)[0];
  EXPECT_EQ(context_full.stop, StopReason::kContextFull);
  EXPECT_EQ(context_full.ids.size(), 3u);   // two are read, the third is the last that the model can say
  EXPECT_THROW(generator.generate(std::vector<std::vector<int32_t>>{random_ids(9, 513)}, options), UserError);
}

TEST(Sampling, DrawsFollowTheProbabilitiesThatAreLeft) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.2f), std::log(0.3f)};
  const auto shares = [&](const SamplingOptions& options) {
    std::vector<double> counts(3);
    for (uint64_t position = 0; position < 20000; ++position) counts[sample_token(logits, options, {}, 1, position)] += 1.0 / 20000;
    return counts;
  };
  SamplingOptions options;
  EXPECT_NEAR(shares(options)[0], 1, 1e-9);
  options.temperature = 1;
  auto all = shares(options);   // three standard deviations: 0.011
  EXPECT_NEAR(all[0], 0.5, 0.011);
  EXPECT_NEAR(all[1], 0.2, 0.011);
  options.top_k = 2;
  EXPECT_NEAR(shares(options)[2], 0.375, 0.011);
  EXPECT_EQ(shares(options)[1], 0);
  options.top_k = 0;
  options.top_p = 0.6;   // 0.5 is not enough, 0.5 + 0.3 is
  EXPECT_NEAR(shares(options)[0], 0.625, 0.011);
  options.top_p = 1;
  options.min_p = 0.5;   // at least 0.25
  EXPECT_NEAR(shares(options)[0], 0.625, 0.011);
  options.min_p = 0;
  options.temperature = 0.5;   // squares: 25 : 4 : 9
  EXPECT_NEAR(shares(options)[2], 9.0 / 38, 0.011);
}

TEST(Sampling, ARepetitionPenaltyLowersTokensThatWereSeen) {
  SamplingOptions options;
  options.repetition_penalty = 2;
  const std::vector<float> logits = {3, 2, -1}, negative = {-1, -1.5};
  const std::vector<int32_t> seen = {0, 0};
  EXPECT_EQ(sample_token(logits, options, seen, 0, 0), 1);
  EXPECT_EQ(sample_token(negative, options, seen, 0, 0), 1);
}

TEST(Sampling, NumbersOutOfRangeAreErrors) {
  EXPECT_THROW(check_sampling({.temperature = -1}), UserError);
  EXPECT_THROW(check_sampling({.top_p = 0}), UserError);
  EXPECT_THROW(check_sampling({.min_p = 2}), UserError);
  EXPECT_NO_THROW(check_sampling({}));
}

}  // namespace
}  // namespace graft
