#include "data/rows/encode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "tests/data/byte_tokenizer.h"

namespace graft {
namespace {

using testing::AllOf;
using testing::HasSubstr;

Row conversation(const std::string& question, const std::string& answer, int64_t line = 1) {
  Row row;
  row.json["messages"] = {{{"role", "user"}, {"content", question}}, {{"role", "assistant"}, {"content", answer}}};
  row.text = question;
  row.source_file = "a.jsonl";
  row.line = line;
  return row;
}

Row document(const std::string& text) {
  Row row;
  row.kind = RowKind::kText;
  row.json["text"] = row.text = text;
  return row;
}

TEST(EncodeRow, OnlyTheAnswerAndItsEndTokenAreTargets) {
  const auto context = test::byte_context();
  const auto encoded = encode_row(context, conversation("Hi", "Yes"));
  std::string targets;
  for (size_t index = 0; index < encoded.ids.size(); ++index) {
    if (encoded.supervised[index]) targets += context.tokenizer->token_bytes(encoded.ids[index]);
  }
  EXPECT_EQ(targets, "Yes<|im_end|>");
}

TEST(EncodeRow, EveryTokenOfADocumentIsSupervisedAndItEndsWithEos) {
  const auto encoded = encode_row(test::byte_context(), document("abc"));
  EXPECT_EQ(encoded.ids, (std::vector<int32_t>{'a', 'b', 'c', test::ByteTokenizer::kEnd}));
  EXPECT_EQ(encoded.supervised, (std::vector<uint8_t>{1, 1, 1, 1}));
}

TEST(EncodeRows, ThreadsDoNotChangeTheResult) {
  std::vector<Row> rows;
  for (int row = 0; row < 300; ++row)
    rows.push_back(row % 5 ? conversation(std::string(row % 37, 'q'), std::to_string(row), row)
                           : document(std::string(row + 1, 'd')));
  int64_t last = 0;
  const auto one = encode_rows(test::byte_context(), rows, 1, [&](int64_t done) { last = done; });
  EXPECT_EQ(last, 300);
  EXPECT_EQ(one.num_rows(), 300);
  EXPECT_EQ(encode_rows(test::byte_context(), rows, 7), one);
  EXPECT_EQ(encode_rows(test::byte_context(), {}, 2).num_rows(), 0);
}

TEST(EncodeRows, EveryRowThatCannotBeEncodedIsListed) {
  std::vector<Row> rows;
  for (int row = 1; row <= 40; ++row) rows.push_back(conversation("q", "a", row));
  for (const int bad : {3, 17}) rows[bad].json["messages"][0]["role"] = "robot";
  try {
    encode_rows(test::byte_context(), rows, 2);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("2 problems"), HasSubstr("a.jsonl:4: "), HasSubstr("a.jsonl:18: "), HasSubstr("robot")));
  }
}

TEST(DocumentWindows, EachTokenButTheFirstIsATargetOnce) {
  for (int64_t length = 1; length < 60; ++length) {
    for (int64_t max_tokens = 2; max_tokens < 12; ++max_tokens) {
      std::vector<int> targets(static_cast<size_t>(length), 0);
      for (const auto& [begin, end] : document_windows(length, max_tokens)) {
        EXPECT_LE(end - begin, max_tokens);
        for (int64_t token = begin + 1; token < end; ++token) ++targets[static_cast<size_t>(token)];
      }
      EXPECT_EQ(targets[0], 0);
      EXPECT_EQ(std::count(targets.begin(), targets.end(), 1), length - 1) << length << " " << max_tokens;
    }
  }
  EXPECT_EQ(split_document({1, 2, 3, 4}, 3), (std::vector<std::vector<int32_t>>{{1, 2, 3}, {3, 4}}));
  EXPECT_THROW(document_windows(5, 1), UserError);
}

TEST(LimitLengths, ErrorTruncateAndDrop) {
  const auto context = test::byte_context();
  const std::vector<Row> rows = {conversation("short", "a"), conversation(std::string(100, 'x'), "cut off"),
                                 conversation("b", std::string(100, 'y')), document(std::string(119, 'z'))};
  const auto encoded = encode_rows(context, rows, 1);
  const auto refused = limit_lengths(rows, encoded, 60, OverLong::kError);
  ASSERT_EQ(refused.over_long.size(), 2u);
  EXPECT_EQ(refused.over_long[0].row, 1);
  EXPECT_EQ(refused.over_long[0].length, encoded.length(1));
  EXPECT_EQ(refused.row_of, (std::vector<int64_t>{0, 1, 2, 3, 3, 3}));  // windows 0..60, 59..119, 118..120
  EXPECT_EQ(refused.cut_documents, (std::vector<int64_t>{3}));
  EXPECT_TRUE(refused.without_targets.empty());

  const auto cut = limit_lengths(rows, encoded, 60, OverLong::kTruncate);
  EXPECT_EQ(cut.tokens.length(1), 60);
  EXPECT_EQ(cut.over_long.size(), 2u);
  EXPECT_EQ(cut.without_targets, (std::vector<int64_t>{1}));  // its answer was cut off

  const auto dropped = limit_lengths(rows, encoded, 60, OverLong::kDrop);
  EXPECT_EQ(dropped.row_of, (std::vector<int64_t>{0, 3, 3, 3}));
  EXPECT_EQ(dropped.over_long.size(), 2u);
  EXPECT_THROW(over_long_of("cut"), UserError);
}

}  // namespace
}  // namespace graft
