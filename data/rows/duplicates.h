// Texts that stand in the data twice: what makes a validation or test score look better than it is, and labels that contradict.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/rows/dataset.h"

namespace graft {

// A row by split (index into the argument of find_duplicates) and index within the split.
struct RowPlace {
  int64_t split = 0, row = 0;
  bool operator==(const RowPlace&) const = default;
};

// `row` has `other` as its counterpart.
struct TextMatch {
  RowPlace row, other;
  double similarity = 1;  // Jaccard index of the word 5-grams; 1 for equal normalised texts
};

// One normalised text with several labels: its first row of each label.
struct LabelConflict {
  std::vector<RowPlace> rows;
};

struct DuplicateFindings {
  // Equal normalised texts. Across splits: each row of the later split with the first such row of each earlier split. Within a
  // split: each row after the first, with the first.
  std::vector<TextMatch> exact;
  // Different normalised texts with a similarity above the threshold: for the first row of each text of a split, and each split
  // up to its own, one counterpart (the most similar of the first 8 found). Within a split both rows of a pair are listed.
  std::vector<TextMatch> near;
  std::vector<LabelConflict> conflicts;
  bool near_was_searched = true;  // false: more than kMaxShingles, the search was left out

  int64_t count_exact(int64_t split, int64_t other_split) const;
  int64_t count_near(int64_t split, int64_t other_split) const;
};

constexpr int64_t kMaxShingles = 30'000'000;  // 20 bytes each while searching

// splits: usually train, validation, test. Exact: an inverted index over the rarest 5-grams of each text finds every pair above
// the threshold (prefix filter: Chaudhuri et al., ICDE 2006), the sets decide. threshold: 0 < threshold < 1.
DuplicateFindings find_duplicates(const std::vector<const std::vector<Row>*>& splits, double threshold = 0.5);

}  // namespace graft
