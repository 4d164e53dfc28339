#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/rows/encode.h"
#include "kernels/common/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/trainer/torch/generation_tiny_model.h"
#include "trainer/evaluation/label_tokens.h"
#include "trainer/evaluation/labelled_report.h"
#include "trainer/evaluation/perplexity.h"
#include "trainer/generation/chat_session.h"

namespace graft {
namespace {

// Labels that begin alike, one that begins another, and one that goes a way of its own.
const std::vector<std::string> kLabels = {"card", "card late", "card lost", "cash", "refund", "refunds", "zz"};

Row labelled_row(const std::string& text, const std::string& label) {
  Row row;
  row.json["messages"] = {{{"role", "user"}, {"content", text}}, {{"role", "assistant"}, {"content", label}}};
  row.source_file = "rows.jsonl";
  row.line = 1;
  row.text = text;
  row.label = label;
  return row;
}

std::vector<Row> labelled_rows(size_t count) {
  std::vector<Row> rows;
  for (size_t i = 0; i < count; ++i) {
    std::string text = "q";
    for (size_t c = 0; c < 3 + 5 * i; ++c) text += static_cast<char>('a' + static_cast<int>(26 * counter_uniform(8, i, c)));
    rows.push_back(labelled_row(text, kLabels[i % kLabels.size()]));
  }
  return rows;
}

// Sum of log-probabilities from one packed forward over the whole text: the specification.
double label_log_probability(const Decoder& decoder, const TemplateContext& context, const Row& row, const std::string& label) {
  const auto rendered = render_answer(context, prompt_of(row), label);
  auto ids = rendered.context;
  ids.insert(ids.end(), rendered.tokens.begin(), rendered.tokens.end());
  Batch batch;
  batch.add_document(ids);
  const auto log_probabilities = at::log_softmax(head_logits(decoder.forward(batch), decoder.head()), -1);
  double sum = 0;
  for (size_t i = rendered.context.size(); i < ids.size(); ++i) {
    sum += log_probabilities[static_cast<int64_t>(i) - 1][ids[i]].item<double>();
  }
  return sum;
}

void expect_brute_force(const TemplateContext& context, int64_t batch_tokens) {
  const test::TinyModel model("qwen3");
  const auto rows = labelled_rows(10);
  LabelledOptions options;
  options.batch_tokens = batch_tokens;
  const auto evaluation = evaluate_labelled(*model.decoder, context, rows, options);
  ASSERT_EQ(evaluation.labels, kLabels);
  for (size_t r = 0; r < rows.size(); ++r) {
    std::vector<double> sums;
    for (const auto& label : kLabels) sums.push_back(label_log_probability(*model.decoder, context, rows[r], label));
    const auto best = std::max_element(sums.begin(), sums.end());
    const auto& answer = evaluation.answers[r];
    EXPECT_EQ(answer.best, best - sums.begin()) << "row " << r;
    EXPECT_NEAR(answer.best_log_probability, *best, 1e-5 * std::abs(*best)) << "row " << r;
    EXPECT_GE(answer.second_log_probability, sums[static_cast<size_t>(answer.second)] - 1e-4);
    EXPECT_EQ(evaluation.labels[static_cast<size_t>(answer.gold)], *rows[r].label);
  }
}

TEST(Labelled, TheMostProbableLabelIsThatOfBruteForce) {
  expect_brute_force(test::byte_context(), 8192);
  expect_brute_force(test::byte_context(), 150);   // groups of one to three rows
}

TEST(Labelled, TextBetweenPromptAndAnswerBelongsToTheContext) {
  auto context = test::byte_context();
  context.chat_template = std::make_shared<ChatTemplate>(
      "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}{% if message['role'] == 'assistant' %}(no thoughts) "
      "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
      "{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
      "thoughts");
  expect_brute_force(context, 8192);
}

TEST(Labelled, GreedyAnswersAreTheGenerators) {
  const test::TinyModel model("llama");
  const auto context = test::byte_context();
  const auto rows = labelled_rows(6);
  const auto evaluation = evaluate_labelled(*model.decoder, context, rows);
  GenerationOptions options;
  options.max_new_tokens = 20;   // twice the longest label, 9 bytes and the end token
  const Generator generator(*model.decoder, context.tokenizer);
  for (size_t r = 0; r < rows.size(); ++r) {
    const std::vector<std::vector<int32_t>> prompt = {encode_prompt(context, prompt_of(rows[r])).ids};
    const auto answer = generator.generate(prompt, options)[0];
    EXPECT_EQ(evaluation.answers[r].text, answer.text.substr(0, answer.text.find_last_not_of(" \t\r\n\v\f") + 1)
                                              .substr(std::min(answer.text.size(), answer.text.find_first_not_of(" \t\r\n\v\f"))));
    EXPECT_EQ(evaluation.answers[r].finished, answer.stop == StopReason::kStopToken);
  }
}

TEST(Labelled, AnswersMatchLabelsExactlyElseIgnoringCase) {
  const std::vector<std::string> texts = {"Card", "card", "lost card"};
  EXPECT_EQ(match_label(" card\n", texts), 1);
  EXPECT_EQ(match_label("Card", texts), 0);
  EXPECT_EQ(match_label("LOST card", texts), 2);
  EXPECT_EQ(match_label("lost", texts), -1);
  EXPECT_EQ(match_label("", texts), -1);
}

TEST(Labelled, AnUnknownLabelOrNoneIsAnErrorThatNamesTheRow) {
  const test::TinyModel model("llama");
  auto rows = labelled_rows(2);
  LabelledOptions options;
  options.texts = {{"card", "card"}};
  try {
    evaluate_labelled(*model.decoder, test::byte_context(), rows, options);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("\"card late\" (rows.jsonl:1)"), std::string::npos) << error.what();
  }
  rows[0].label.reset();
  EXPECT_THROW(label_texts(rows), UserError);
}

TEST(LabelledReport, TableFitsAHundredColumnsAndJsonHoldsTheScores) {
  LabelledEvaluation evaluation;
  evaluation.labels = {"a label whose name is much too long for one column of a table", "ü", "cash"};
  for (int32_t row = 0; row < 30; ++row) {
    LabelledAnswer answer;
    answer.gold = row % 3;
    answer.greedy = row % 7 == 0 ? -1 : row % 5 == 0 ? 0 : answer.gold;
    answer.best = answer.gold;
    answer.best_log_probability = -0.1 * row;
    evaluation.answers.push_back(answer);
  }
  const auto report = report_of(evaluation, {}, 0.5);
  const auto table = report_table(report);
  for (size_t at = 0; at < table.size();) {
    const auto end = table.find('\n', at);
    size_t columns = 0;
    for (size_t i = at; i < end; ++i) columns += (static_cast<unsigned char>(table[i]) & 0xC0) != 0x80;
    EXPECT_LE(columns, 100u) << table.substr(at, end - at);
    at = end + 1;
  }
  const auto json = report_json(report);
  EXPECT_EQ(json["rows"], 30);
  EXPECT_EQ(json["accuracy"], report.greedy->accuracy.value);
  EXPECT_EQ(json["most_probable"]["accuracy"], 1.0);
  EXPECT_EQ(json["abstention"]["answered"], 7);   // exp(-0.6) = 0.55, exp(-0.7) = 0.497
  std::vector<Row> rows(30);
  const auto file = evaluation_json(std::nullopt, {evaluation, report}, rows, 4);
  EXPECT_EQ(file["answers"].size(), 4u);
  EXPECT_EQ(file["confusion"][0].size(), 4u);
  EXPECT_FALSE(evaluation_json(std::nullopt, {evaluation, report}, rows, 0).contains("answers"));
}

TEST(Perplexity, IsTheMeanOverSupervisedTokensOfSeparateForwards) {
  const test::TinyModel model("llama");
  const auto context = test::byte_context();
  auto rows = labelled_rows(8);
  Row document;   // three windows of 20 tokens
  document.kind = RowKind::kText;
  document.json["text"] = document.text = "a document of text that is cut in windows, each of its bytes a target once";
  rows.push_back(document);
  double loss = 0;
  int64_t targets = 0;
  for (const auto& row : rows) {
    const auto encoded = encode_row(context, row);
    for (const auto& [begin, end] : document_windows(static_cast<int64_t>(encoded.ids.size()), row.kind == RowKind::kText ? 20 : 1000)) {
      Batch batch;
      batch.add_document({encoded.ids.begin() + begin, encoded.ids.begin() + end});
      const auto log_probabilities = at::log_softmax(head_logits(model.decoder->forward(batch), model.decoder->head()), -1);
      for (int64_t i = 1; i < end - begin; ++i) {
        if (!encoded.supervised[static_cast<size_t>(begin + i)]) continue;
        loss -= log_probabilities[i - 1][encoded.ids[static_cast<size_t>(begin + i)]].item<double>();
        ++targets;
      }
    }
  }
  PerplexityOptions options;
  options.max_tokens = 20;
  options.pack_tokens = 100;
  const auto scores = evaluate_perplexity(*model.decoder, context, rows, options);
  EXPECT_EQ(scores.supervised_tokens, targets);
  EXPECT_NEAR(scores.loss.value, loss / static_cast<double>(targets), 1e-5);
  EXPECT_NEAR(scores.perplexity, std::exp(loss / static_cast<double>(targets)), 1e-3);
  EXPECT_LT(scores.loss.low, scores.loss.value);
  EXPECT_GT(scores.loss.high, scores.loss.value);
}

TEST(ChatSession, ALaterTurnReadsOnlyWhatIsNewAndAnswersTheSame) {
  const test::TinyModel model("qwen3");
  const auto context = test::byte_context();
  ChatSession session(*model.decoder, context, "be short");
  GenerationOptions options;
  options.max_new_tokens = 12;
  std::string shown;
  const auto show = [&](std::string_view piece) {
    shown += piece;
    return true;
  };
  session.answer("hello", options, show);
  shown.clear();
  const auto second = session.answer("and now?", options, show);
  auto messages = session.messages();
  ASSERT_EQ(messages.size(), 5u);
  messages.erase(4);
  const std::vector<std::vector<int32_t>> prompt = {encode_prompt(context, {{"messages", messages}}).ids};
  const auto fresh = Generator(*model.decoder, context.tokenizer).generate(prompt, options)[0];
  EXPECT_EQ(second.ids, fresh.ids);
  EXPECT_LT(session.tokens_read(), static_cast<int64_t>(prompt[0].size()) - 30);
  session.forget_cache();
  session.reset();
  EXPECT_EQ(session.messages().size(), 1u);
  // Stopped by the user: the conversation holds what was shown.
  int pieces = 0;
  const auto stopped = session.answer("hello", options, [&](std::string_view) { return ++pieces < 4; });
  EXPECT_EQ(stopped.stop, StopReason::kCancelled);
  EXPECT_EQ(stopped.ids.size(), 4u);
}

}  // namespace
}  // namespace graft
