#include "data/rows/duplicates.h"

#include <ctime>
#include <random>
#include <set>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "data/rows/normalised_text.h"

namespace graft {
namespace {

Row row_of(const std::string& text, std::optional<std::string> label = {}) {
  Row row;
  row.text = text;
  row.label = std::move(label);
  return row;
}

TEST(NormalisedText, CaseWidthSpacesAndPunctuation) {
  EXPECT_EQ(normalised_text("  Where IS\tmy card?! "), "where is my card");
  EXPECT_EQ(normalised_text("\uFF21\uFF22\uFF23 \uFB01ne"), "abc fine");  // full-width letters, the fi ligature
  EXPECT_EQ(normalised_text("Cafe\u0301"), normalised_text("CAF\u00C9"));
  EXPECT_EQ(normalised_text("top-up"), "top up");
  EXPECT_NE(normalised_text("2 + 2"), normalised_text("2 * 2"));
  EXPECT_NE(normalised_text("good \U0001F44D"), normalised_text("good \U0001F44E"));
  EXPECT_EQ(normalised_text("\u5317\u4EAC"), "\u5317 \u4EAC");
  EXPECT_EQ(normalised_text("?!"), "?!");
}

TEST(WordShingles, ShortTextsAreOneShingle) {
  EXPECT_EQ(word_shingles("a b c d").size(), 1u);
  EXPECT_EQ(word_shingles("a b c d e").size(), 1u);
  EXPECT_EQ(word_shingles("a b c d e f").size(), 2u);
  EXPECT_EQ(word_shingles("a a a a a a a").size(), 1u);
  EXPECT_DOUBLE_EQ(jaccard({1, 2, 3}, {2, 3, 4}), 0.5);
}

TEST(Duplicates, WithinAndAcrossSplits) {
  const std::vector<Row> train = {row_of("Hello you", "a"), row_of("hello YOU!", "b"), row_of("other")};
  const std::vector<Row> test = {row_of("hello, you", "a"), row_of("new")};
  const auto findings = find_duplicates({&train, &test});
  EXPECT_EQ(findings.count_exact(0, 0), 1);
  EXPECT_EQ(findings.count_exact(1, 0), 1);
  EXPECT_EQ(findings.count_exact(1, 1), 0);
  ASSERT_EQ(findings.conflicts.size(), 1u);
  EXPECT_EQ(findings.conflicts[0].rows, (std::vector<RowPlace>{{0, 0}, {0, 1}}));
}

// The inverted index must find exactly the texts that a comparison of all pairs finds.
TEST(Duplicates, NearDuplicatesEqualAllPairs) {
  std::mt19937 random(1);
  std::vector<Row> train, test;
  std::vector<std::string> bases;
  for (int text = 0; text < 60; ++text) {
    std::string words;
    for (int word = 0; word < 8 + text % 20; ++word) words += fmt::format("w{} ", random() % 50);
    bases.push_back(words);
  }
  for (int text = 0; text < 300; ++text) {
    std::string words = bases[random() % bases.size()];
    for (unsigned change = random() % 4; change > 0; --change)
      words.insert(random() % words.size(), fmt::format(" x{} ", random() % 9));
    (text % 3 ? train : test).push_back(row_of(words));
  }
  const auto findings = find_duplicates({&train, &test});
  std::set<std::string> expected, found;
  for (const Row& row : test) {
    for (const Row& other : train) {
      const std::string a = normalised_text(row.text), b = normalised_text(other.text);
      if (a != b && jaccard(word_shingles(a), word_shingles(b)) > 0.5) expected.insert(a);
    }
  }
  for (const TextMatch& match : findings.near) {
    if (match.row.split == 1 && match.other.split == 0)
      found.insert(normalised_text(test[static_cast<size_t>(match.row.row)].text));
  }
  EXPECT_GT(expected.size(), 10u);
  EXPECT_EQ(found, expected);
}

// Texts from one fill-in template share most of their 5-grams: the worst case for an inverted index.
TEST(Duplicates, TwentyThousandTemplatedRowsAreFast) {
  std::vector<Row> rows;
  for (int row = 0; row < 20'000; ++row) {
    rows.push_back(row_of(fmt::format(
        "please tell me what i should do about the order {0} which i made {0} days ago in your shop at home", row)));
  }
  const std::clock_t start = std::clock();  // of this process: other work on the machine does not count
  const auto findings = find_duplicates({&rows});
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 10);   // under a sanitizer on a busy machine; comparing all pairs would take minutes
  EXPECT_EQ(findings.exact.size(), 0u);
}

}  // namespace
}  // namespace graft
