// The real data sets beside the repository.
#include <fstream>

#include <gtest/gtest.h>

#include "data/rows/csv_table.h"
#include "data/rows/dataset.h"
#include "data/rows/duplicates.h"
#include "data/rows/normalised_text.h"
#include "data/rows/split.h"
#include "tests/support/files.h"

namespace graft {
namespace {

std::vector<Row> banking(const std::string& part) {
  return read_rows({.path = test::shared_dir() / "data/banking77/banking_data" / (part + ".csv"),
                    .format = "labelled",
                    .label = "category"});
}

TEST(Banking77, EveryRowIsRead) {
  const auto train = banking("train"), test = banking("test");
  EXPECT_EQ(train.size(), 10'003u);
  EXPECT_EQ(test.size(), 3'080u);
  EXPECT_EQ(train[0].text, "I am still waiting on my card?");
  EXPECT_EQ(*train[0].label, "card_arrival");
}

// SOURCE.txt: 25 test texts also occur (normalised) in train; 1 text with conflicting labels.
TEST(Banking77, FindsTheTestTextsThatStandInTrain) {
  const auto train = banking("train"), test = banking("test");
  const auto findings = find_duplicates({&train, &test});
  EXPECT_EQ(findings.count_exact(1, 0), 25);
  EXPECT_EQ(findings.conflicts.size(), 2u);  // one more text has another label in test
  const auto conflicts = find_duplicates({&train}).conflicts;
  ASSERT_EQ(conflicts.size(), 1u);
  EXPECT_EQ(normalised_text(train[static_cast<size_t>(conflicts[0].rows[0].row)].text), "has my top up gone through");
  EXPECT_EQ(train.size() - static_cast<size_t>(findings.count_exact(0, 0)), 9'974u);  // distinct texts, counted by Python
}

TEST(Banking77, ValidationKeepsLabelsInProportionAndTextsOnOneSide) {
  const auto train = banking("train");
  const auto chosen = validation_rows(train, 0.1);
  EXPECT_NEAR(static_cast<double>(chosen.size()), 1000, 10);
  std::vector<Row> validation, rest;
  std::map<std::string, std::pair<int, int>> labels;
  for (size_t row = 0, next = 0; row < train.size(); ++row) {
    const bool is_chosen = next < chosen.size() && chosen[next] == static_cast<int64_t>(row);
    next += is_chosen;
    (is_chosen ? validation : rest).push_back(train[row]);
    ++(is_chosen ? labels[*train[row].label].first : labels[*train[row].label].second);
  }
  EXPECT_EQ(find_duplicates({&rest, &validation}).count_exact(1, 0), 0);
  for (const auto& [label, counts] : labels) EXPECT_NEAR(counts.first, 0.1 * (counts.first + counts.second), 1.01) << label;
}

TEST(Clinc, IsReadAsJsonLines) {
  const auto parts = nlohmann::json::parse(test::read_file(test::shared_dir() / "data/clinc_oos/data/data_full.json"));
  test::TemporaryFolder folder;
  std::ofstream file(folder / "train.jsonl");
  for (const char* part : {"train", "oos_train"}) {
    for (const auto& pair : parts[part]) file << nlohmann::json{{"text", pair[0]}, {"label", pair[1]}} << "\n";
  }
  file.close();
  const auto rows = read_rows({.path = folder / "train.jsonl", .format = "labelled"});
  EXPECT_EQ(rows.size(), 15'100u);
  EXPECT_EQ(*rows.back().label, "oos");
}

TEST(LegalPolicies, EveryMarkdownFileIsOneRow) {
  const auto rows = read_rows({.path = test::shared_dir() / "data/legal_policies", .format = "text"});
  EXPECT_GE(rows.size(), 89u);
  EXPECT_TRUE(
      std::is_sorted(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.source_file < b.source_file; }));
}

}  // namespace
}  // namespace graft
