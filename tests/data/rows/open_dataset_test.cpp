#include "data/rows/open_dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/support/files.h"

namespace graft {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::Field;
using testing::HasSubstr;
using Severity = DatasetFinding::Severity;

struct OpenDataset : testing::Test {
  test::TemporaryFolder folder;
  DatasetRequest request{.context = test::byte_context(), .threads = 2};

  SourceOptions source(const std::string& name, const std::string& text, const std::string& format = "labelled") {
    test::write_file(folder / name, text);
    return {.path = folder / name, .format = format};
  }
};

auto finding(Severity severity, const std::string& code, const std::string& message) {
  return AllOf(Field(&DatasetFinding::severity, severity), Field(&DatasetFinding::code, code),
               Field(&DatasetFinding::message, HasSubstr(message)));
}

TEST_F(OpenDataset, SplitsEncodesAndCounts) {
  std::string text = "text,label\n";
  for (int row = 0; row < 40; ++row) text += "question number " + std::to_string(row) + (row % 2 ? ",odd\n" : ",even\n");
  request.train = {source("train.csv", text)};
  request.train[0].weight = 0.5;
  request.validation_fraction = 0.25;
  std::vector<std::string> stages;
  request.progress = [&](const std::string& stage, int64_t, int64_t) { stages.push_back(stage); };
  request.cache = folder / "cache";
  const Dataset data = open_dataset(request);
  EXPECT_EQ(data.train.num_sequences(), 30);
  EXPECT_EQ(data.validation.num_sequences(), 10);
  EXPECT_EQ(data.test.num_sequences(), 0);
  EXPECT_EQ(data.train.statistics.rows_per_label.at("odd"), 15);
  EXPECT_EQ(data.validation.statistics.rows_per_label.at("even"), 5);
  EXPECT_EQ(data.train.statistics.targets, 15 * 4 + 15 * 5);  // "odd", "even" and the end token
  EXPECT_EQ(data.train.statistics.tokens, static_cast<int64_t>(data.train.tokens.ids.size()));
  EXPECT_EQ(data.train.lengths.size(), 30u);
  int64_t counted = 0;
  for (const LengthBin& bin : data.train.statistics.lengths) counted += bin.count;
  EXPECT_EQ(counted, 30);
  EXPECT_EQ(data.train.statistics.lengths.back().up_to, 64);
  EXPECT_FALSE(data.has_errors());
  EXPECT_NO_THROW(data.require_usable());
  EXPECT_THAT(stages, Contains("tokenising train"));
  EXPECT_EQ(data.train.spans({0, 3})[1].weight, 0.5f);
  EXPECT_EQ(data.train.spans({3})[0].ids.size(), static_cast<size_t>(data.train.lengths[3]));
}

TEST_F(OpenDataset, LeaksAndContradictionsAreFindings) {
  request.train = {source("train.csv",
                          "text,label\nWhere is my card?,card\nhello,greet\nhello,bye\n"
                          "one two three four five six seven eight nine ten,x\n")};
  request.validation = {source("validation.csv", "text,label\nwhere is MY card,card\nnew,alien\n")};
  request.test = {source("test.csv", "text,label\nHello,greet\none two three four five six seven eight nine eleven,x\n")};
  const Dataset data = open_dataset(request);
  EXPECT_THAT(data.findings,
              Contains(finding(Severity::kError, "validation_leak", "1 row of validation whose text also stands in train")));
  EXPECT_THAT(data.findings,
              Contains(finding(Severity::kWarning, "test_leak", "1 row of test whose text also stands in train")));
  EXPECT_THAT(data.findings, Contains(finding(Severity::kWarning, "two_labels", "1 text with two labels")));
  EXPECT_THAT(data.findings, Contains(finding(Severity::kWarning, "near_duplicates", "1 row of test with a near-duplicate")));
  EXPECT_THAT(data.findings,
              Contains(finding(Severity::kWarning, "unknown_label", "1 label of validation never stand in train")));
  EXPECT_TRUE(data.has_errors());
  try {
    data.require_usable();
    FAIL();
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("validation.csv:2 = train.csv:2"));
  }
}

TEST_F(OpenDataset, OverLongRowsAreRefusedByLineUntilThePolicySaysOtherwise) {
  request.train = {source("train.csv", "text,label\nshort,a\n" + std::string(300, 'x') + ",b\n")};
  request.max_tokens = 100;
  const Dataset refused = open_dataset(request);
  EXPECT_THAT(refused.findings,
              Contains(finding(Severity::kError, "over_long", "1 row of train longer than data.max_tokens 100")));
  EXPECT_THAT(refused.findings[0].places, testing::ElementsAre(HasSubstr("train.csv:3: 3")));
  request.over_long = OverLong::kDrop;
  const Dataset dropped = open_dataset(request);
  EXPECT_THAT(dropped.findings, Contains(finding(Severity::kWarning, "over_long", "dropped")));
  EXPECT_EQ(dropped.train.num_sequences(), 1);
  EXPECT_EQ(dropped.train.statistics.dropped_rows, 1);
  request.over_long = OverLong::kTruncate;
  EXPECT_THAT(open_dataset(request).findings,
              Contains(finding(Severity::kError, "nothing_supervised", "1 row of train with no token to learn from")));
}

TEST_F(OpenDataset, DocumentsAreCutIntoListedWindows) {
  request.train = {source("a.txt", std::string(250, 'x'), "text")};
  request.max_tokens = 100;
  const Dataset data = open_dataset(request);
  EXPECT_EQ(data.train.num_sequences(), 3);
  EXPECT_EQ(data.train.row_of, (std::vector<int64_t>{0, 0, 0}));
  EXPECT_EQ(data.train.statistics.targets, 250);  // 250 bytes and the end token, without the first
  EXPECT_THAT(data.findings,
              Contains(finding(Severity::kNote, "cut_documents", "1 row of train of format text cut into windows")));
  EXPECT_FALSE(data.has_errors());
}

TEST_F(OpenDataset, PromptsTrainOnlyWithATeacher) {
  request.train = {source("p.jsonl", R"({"prompt":"a"})", "prompts")};
  EXPECT_TRUE(open_dataset(request).has_errors());
  request.prompts_may_train = true;
  EXPECT_FALSE(open_dataset(request).has_errors());
}

TEST_F(OpenDataset, ContradictoryRequests) {
  EXPECT_THROW(open_dataset(request), UserError);
  request.train = request.validation = {source("train.csv", "text,label\na,b\n")};
  request.validation_fraction = 0.5;
  EXPECT_THROW(open_dataset(request), UserError);
}

}  // namespace
}  // namespace graft
