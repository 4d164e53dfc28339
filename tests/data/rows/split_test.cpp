#include "data/rows/split.h"

#include <algorithm>
#include <random>
#include <set>

#include <gtest/gtest.h>

#include "data/rows/normalised_text.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

std::vector<Row> rows_of(int labels, int texts_per_label, int copies) {
  std::vector<Row> rows;
  for (int label = 0; label < labels; ++label) {
    for (int text = 0; text < texts_per_label; ++text) {
      for (int copy = 0; copy < copies; ++copy) {
        Row row;
        row.text = "Text " + std::to_string(label) + " " + std::to_string(text) + std::string(static_cast<size_t>(copy), '!');
        row.label = "label" + std::to_string(label);
        rows.push_back(row);
      }
    }
  }
  return rows;
}

std::multiset<std::string> texts_at(const std::vector<Row>& rows, const std::vector<int64_t>& indices) {
  std::multiset<std::string> texts;
  for (const int64_t index : indices) texts.insert(rows[static_cast<size_t>(index)].text);
  return texts;
}

TEST(ValidationRows, TotalAndSharesPerLabel) {
  for (const double fraction : {0.05, 0.1, 0.25, 0.5}) {
    const auto rows = rows_of(7, 30, 1);
    const auto chosen = validation_rows(rows, fraction);
    EXPECT_EQ(static_cast<int64_t>(chosen.size()), std::llround(fraction * 210));
    std::map<std::string, double> per_label;
    for (const int64_t index : chosen) per_label[*rows[static_cast<size_t>(index)].label] += 1;
    for (const auto& [label, count] : per_label) EXPECT_NEAR(count, fraction * 30, 1);
  }
}

TEST(ValidationRows, DoesNotDependOnRowOrder) {
  auto rows = rows_of(5, 12, 2);
  const auto before = texts_at(rows, validation_rows(rows, 0.2));
  std::mt19937 random(1);
  std::shuffle(rows.begin(), rows.end(), random);
  const auto chosen = validation_rows(rows, 0.2);
  EXPECT_EQ(texts_at(rows, chosen), before);
  EXPECT_TRUE(std::is_sorted(chosen.begin(), chosen.end()));
}

TEST(ValidationRows, EqualTextsLandOnOneSide) {
  auto rows = rows_of(4, 10, 3);
  rows[0].label = "label3";  // a text with two labels
  const auto chosen = validation_rows(rows, 0.3);
  std::set<std::string> validation, train;
  for (size_t row = 0; row < rows.size(); ++row) {
    (std::binary_search(chosen.begin(), chosen.end(), static_cast<int64_t>(row)) ? validation : train)
        .insert(normalised_text(rows[row].text));
  }
  for (const auto& text : validation) EXPECT_EQ(train.count(text), 0u);
  EXPECT_GT(validation.size(), 5u);
}

TEST(ValidationRows, KeepsATextOfEachLabelForTraining) {
  auto rows = rows_of(3, 1, 4);
  EXPECT_THROW(validation_rows(rows, 0.5), UserError);  // one text a label: none can go
  rows = rows_of(3, 2, 1);
  EXPECT_EQ(validation_rows(rows, 0.9).size(), 3u);
  EXPECT_TRUE(validation_rows(rows, 0).empty());
  EXPECT_THROW(validation_rows(rows, 1.0), UserError);
  EXPECT_THROW(validation_rows(rows, -0.1), UserError);
}

}  // namespace
}  // namespace graft
