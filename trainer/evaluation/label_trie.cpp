#include "trainer/evaluation/label_trie.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/common/error.h"

namespace graft {

namespace {
constexpr double kImpossible = -std::numeric_limits<double>::infinity();
}  // namespace

LabelTrie::LabelTrie(std::span<const std::vector<int32_t>> labels) : nodes_(1), num_labels_(static_cast<int32_t>(labels.size())) {
  for (int32_t label = 0; label < num_labels_; ++label) {
    const auto& tokens = labels[static_cast<size_t>(label)];
    if (tokens.empty()) fail("evaluation", "expected labels of at least one token, got an empty one (label {})", label + 1);
    int32_t at = 0;
    for (const auto token : tokens) {
      auto& children = nodes_[static_cast<size_t>(at)].children;
      const auto place = std::lower_bound(children.begin(), children.end(), token, [&](int32_t child, int32_t value) { return node(child).token < value; });
      if (place != children.end() && node(*place).token == token) {
        at = *place;
        continue;
      }
      const auto added = static_cast<int32_t>(nodes_.size());
      children.insert(place, added);
      nodes_.push_back({token, at, -1, {}});
      at = added;
    }
    auto& end = nodes_[static_cast<size_t>(at)].label;
    if (end >= 0) fail("evaluation", "expected labels that differ in their tokens, got labels {} and {} with the same — rename one", end + 1, label + 1);
    end = label;
  }
}

std::vector<int32_t> LabelTrie::path(int32_t index) const {
  std::vector<int32_t> tokens;
  for (; index > 0; index = node(index).parent) tokens.push_back(node(index).token);
  std::reverse(tokens.begin(), tokens.end());
  return tokens;
}

LabelSearch::LabelSearch(const LabelTrie& trie)
    : trie_(trie), open_{{0, 0}}, completed_(static_cast<size_t>(trie.num_labels()), std::nan("")), best_sum_(kImpossible) {}

std::vector<int32_t> LabelSearch::next() const {
  if (open_.empty() || (best_ >= 0 && best_sum_ >= open_.front().sum)) return {};
  std::vector<int32_t> chain{open_.front().node};
  while (trie_.node(chain.back()).children.size() == 1) {
    const int32_t child = trie_.node(chain.back()).children[0];
    if (trie_.node(child).children.empty()) break;   // its log-probability follows from the node above
    chain.push_back(child);
  }
  return chain;
}

void LabelSearch::reach(int32_t node, double sum, bool keep_open) {
  const auto& reached = trie_.node(node);
  if (reached.label >= 0) {
    completed_[static_cast<size_t>(reached.label)] = sum;
    if (best_ < 0 || sum > best_sum_) {
      best_ = reached.label;
      best_sum_ = sum;
    }
  }
  if (keep_open && !reached.children.empty()) {
    open_.push_back({sum, node});
    std::push_heap(open_.begin(), open_.end());
  }
}

void LabelSearch::expand(const std::vector<int32_t>& chain, const std::function<double(size_t, int32_t)>& log_probability) {
  double sum = open_.front().sum;
  std::pop_heap(open_.begin(), open_.end());
  open_.pop_back();
  for (size_t i = 0; i < chain.size(); ++i) {
    const bool last = i + 1 == chain.size();
    const double before = sum;
    for (const auto child : trie_.node(chain[i]).children) {   // one child only, where the chain goes on
      sum = before + log_probability(i, trie_.node(child).token);
      reach(child, sum, last);
    }
  }
}

std::vector<LabelSearch::Bounds> LabelSearch::bounds() const {
  std::vector<Bounds> result(completed_.size(), {kImpossible, 0});
  for (const auto& [sum, top] : open_) {
    std::vector<int32_t> below = trie_.node(top).children;
    while (!below.empty()) {
      const auto& node = trie_.node(below.back());
      below.pop_back();
      if (node.label >= 0) result[static_cast<size_t>(node.label)].upper = sum;
      below.insert(below.end(), node.children.begin(), node.children.end());
    }
  }
  for (size_t label = 0; label < completed_.size(); ++label) {
    if (!std::isnan(completed_[label])) result[label] = {completed_[label], completed_[label]};
  }
  return result;
}

}  // namespace graft
