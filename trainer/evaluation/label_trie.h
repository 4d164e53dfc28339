// The most probable of many labels, exactly, without computing them all: best-first search in the trie of their tokens.
//
//   log p(label) = sum over its tokens, end token included, of log p(token | prompt, tokens before); no length normalisation
//
// A token's log-probability is at most 0, so the sum so far bounds every label below a node (an admissible bound, as in A*: Hart et al. 1968).
// The search ends when the best whole label is at least as probable as every open prefix; nothing that is left can beat it.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace graft {

class LabelTrie {
 public:
  struct Node {
    int32_t token = -1, parent = -1;
    int32_t label = -1;               // the label that ends here; it may go on below as another one
    std::vector<int32_t> children;    // by rising token
  };

  // labels[i]: tokens of label i, not empty. UserError when two labels have the same tokens.
  explicit LabelTrie(std::span<const std::vector<int32_t>> labels);

  const Node& node(int32_t index) const { return nodes_[static_cast<size_t>(index)]; }   // 0 is the root
  int32_t num_labels() const { return num_labels_; }
  std::vector<int32_t> path(int32_t node) const;   // tokens from the root

 private:
  std::vector<Node> nodes_;
  int32_t num_labels_ = 0;
};

// The search of one row. Repeat: next(), compute the log-probabilities that expand() asks for; until next() is empty.
class LabelSearch {
 public:
  explicit LabelSearch(const LabelTrie& trie);

  // The most probable open node and, after it, the nodes below as long as there is one way to go: one forward pass does for all of them.
  // Empty: finished.
  std::vector<int32_t> next() const;
  // log_probability(i, token): of `token` after the prompt and the path to chain[i].
  void expand(const std::vector<int32_t>& chain, const std::function<double(size_t, int32_t)>& log_probability);

  int32_t best() const { return best_; }                             // -1 before the first whole label
  double best_log_probability() const { return best_sum_; }
  // What is known of each label's log-probability: exact where it was completed, else lower is -infinity and upper its prefix's sum.
  struct Bounds {
    double lower, upper;
  };
  std::vector<Bounds> bounds() const;

 private:
  struct Open {
    double sum;
    int32_t node;
    bool operator<(const Open& other) const { return sum != other.sum ? sum < other.sum : node > other.node; }
  };
  void reach(int32_t node, double sum, bool keep_open);

  const LabelTrie& trie_;
  std::vector<Open> open_;           // a heap
  std::vector<double> completed_;    // per label; NaN: not reached
  int32_t best_ = -1;
  double best_sum_;
};

}  // namespace graft
