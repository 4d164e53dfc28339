#include "data/rows/duplicates.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "data/rows/normalised_text.h"

namespace graft {
namespace {

constexpr int kPartnersToCompare = 8;

// One normalised text with the rows that have it, in order of splits and rows.
struct Text {
  std::vector<RowPlace> rows;
  std::vector<uint64_t> shingles;
};

std::vector<Text> distinct_texts(const std::vector<const std::vector<Row>*>& splits) {
  std::vector<Text> texts;
  std::unordered_map<std::string, size_t> index;
  for (size_t split = 0; split < splits.size(); ++split) {
    for (size_t row = 0; row < splits[split]->size(); ++row) {
      std::string normalised = normalised_text((*splits[split])[row].text);
      const auto [entry, is_new] = index.try_emplace(std::move(normalised), texts.size());
      if (is_new) texts.push_back({{}, word_shingles(entry->first)});
      texts[entry->second].rows.push_back({static_cast<int64_t>(split), static_cast<int64_t>(row)});
    }
  }
  return texts;
}

// The first row of each split.
std::vector<RowPlace> first_rows(const Text& text) {
  std::vector<RowPlace> first;
  for (const RowPlace& place : text.rows) {
    if (first.empty() || first.back().split != place.split) first.push_back(place);
  }
  return first;
}

void add_exact(const Text& text, std::vector<TextMatch>& matches) {
  const auto first = first_rows(text);
  for (const RowPlace& place : text.rows) {
    for (const RowPlace& other : first) {
      if (other.split <= place.split && !(other == place)) matches.push_back({place, other, 1.0});
    }
  }
}

void add_conflict(const Text& text, const std::vector<const std::vector<Row>*>& splits, std::vector<LabelConflict>& conflicts) {
  LabelConflict conflict;
  std::vector<std::string> seen;
  for (const RowPlace& place : text.rows) {
    const Row& row = (*splits[static_cast<size_t>(place.split)])[static_cast<size_t>(place.row)];
    if (!row.label || std::find(seen.begin(), seen.end(), *row.label) != seen.end()) continue;
    seen.push_back(*row.label);
    conflict.rows.push_back(place);
  }
  if (seen.size() > 1) conflicts.push_back(std::move(conflict));
}

// Replaces each shingle by its rank, rarest first, so that sorted sets begin with what few texts share.
void rank_by_rarity(std::vector<Text>& texts) {
  std::unordered_map<uint64_t, uint64_t> counts;
  for (const Text& text : texts) {
    for (const uint64_t shingle : text.shingles) ++counts[shingle];
  }
  std::vector<std::pair<uint64_t, uint64_t>> order;  // count, shingle
  for (const auto& [shingle, count] : counts) order.emplace_back(count, shingle);
  std::sort(order.begin(), order.end());
  for (size_t rank = 0; rank < order.size(); ++rank) counts[order[rank].second] = rank;
  for (Text& text : texts) {
    for (uint64_t& shingle : text.shingles) shingle = counts[shingle];
    std::sort(text.shingles.begin(), text.shingles.end());
  }
}

// Two sets with a Jaccard index above t share more than t*|x| elements, so they share one of the first |x| - floor(t*|x|) of
// each.
size_t prefix_length(const Text& text, double threshold) {
  const auto size = static_cast<double>(text.shingles.size());
  return text.shingles.size() - static_cast<size_t>(std::floor(threshold * size));
}

class NearDuplicateSearch {
 public:
  NearDuplicateSearch(const std::vector<Text>& texts, size_t num_splits, double threshold)
      : texts_(texts), num_splits_(num_splits), threshold_(threshold), last_seen_by_(texts.size(), texts.size()) {
    for (size_t text = 0; text < texts.size(); ++text) {
      for (size_t index = 0; index < prefix_length(texts[text], threshold); ++index)
        holders_[texts[text].shingles[index]].push_back(text);
    }
  }

  void add_matches_of(size_t text, std::vector<TextMatch>& matches) {
    const auto rows = first_rows(texts_[text]);
    const auto last_split = static_cast<size_t>(rows.back().split);
    std::vector<TextMatch> best(num_splits_, TextMatch{{}, {}, 0});
    std::vector<int> found(num_splits_, 0);
    const auto is_open = [&](size_t split) { return split <= last_split && found[split] < kPartnersToCompare; };
    for (size_t index = 0; index < prefix_length(texts_[text], threshold_); ++index) {
      for (const size_t other : holders_.at(texts_[text].shingles[index])) {
        if (other == text || last_seen_by_[other] == text) continue;
        last_seen_by_[other] = text;
        if (!sizes_allow(texts_[text], texts_[other])) continue;
        const auto other_rows = first_rows(texts_[other]);
        if (std::none_of(other_rows.begin(), other_rows.end(),
                         [&](const RowPlace& place) { return is_open(static_cast<size_t>(place.split)); }))
          continue;
        const double similarity = jaccard(texts_[text].shingles, texts_[other].shingles);
        if (similarity <= threshold_) continue;
        for (const RowPlace& place : other_rows) {
          const auto split = static_cast<size_t>(place.split);
          if (is_open(split) && ++found[split] && similarity > best[split].similarity) best[split] = {{}, place, similarity};
        }
      }
    }
    for (const RowPlace& row : rows) {
      for (size_t split = 0; split <= static_cast<size_t>(row.split); ++split) {
        if (found[split]) matches.push_back({row, best[split].other, best[split].similarity});
      }
    }
  }

 private:
  bool sizes_allow(const Text& a, const Text& b) const {
    const auto [small, large] = std::minmax({a.shingles.size(), b.shingles.size()});
    return static_cast<double>(small) > threshold_ * static_cast<double>(large);
  }

  const std::vector<Text>& texts_;
  size_t num_splits_;
  double threshold_;
  std::vector<size_t> last_seen_by_;
  std::unordered_map<uint64_t, std::vector<size_t>> holders_;
};

int64_t count(const std::vector<TextMatch>& matches, int64_t split, int64_t other_split) {
  return std::count_if(matches.begin(), matches.end(),
                       [&](const TextMatch& match) { return match.row.split == split && match.other.split == other_split; });
}

}  // namespace

int64_t DuplicateFindings::count_exact(int64_t split, int64_t other_split) const { return count(exact, split, other_split); }
int64_t DuplicateFindings::count_near(int64_t split, int64_t other_split) const { return count(near, split, other_split); }

DuplicateFindings find_duplicates(const std::vector<const std::vector<Row>*>& splits, double threshold) {
  DuplicateFindings findings;
  std::vector<Text> texts = distinct_texts(splits);
  int64_t num_shingles = 0;
  for (const Text& text : texts) {
    add_exact(text, findings.exact);
    add_conflict(text, splits, findings.conflicts);
    num_shingles += static_cast<int64_t>(text.shingles.size());
  }
  findings.near_was_searched = num_shingles <= kMaxShingles;
  if (!findings.near_was_searched) return findings;
  rank_by_rarity(texts);
  NearDuplicateSearch search(texts, splits.size(), threshold);
  for (size_t text = 0; text < texts.size(); ++text) search.add_matches_of(text, findings.near);
  return findings;
}

}  // namespace graft
