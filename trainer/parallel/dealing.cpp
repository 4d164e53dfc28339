#include "trainer/parallel/dealing.h"

#include <algorithm>
#include <numeric>

namespace graft {

std::vector<int> deal(const std::vector<int64_t>& tokens, int num_ranks) {
  std::vector<size_t> order(tokens.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return tokens[a] > tokens[b]; });
  std::vector<int64_t> load(static_cast<size_t>(num_ranks), 0);
  std::vector<int> ranks(tokens.size());
  for (const auto index : order) {
    const auto lightest = std::min_element(load.begin(), load.end());
    ranks[index] = static_cast<int>(lightest - load.begin());
    *lightest += tokens[index];
  }
  return ranks;
}

std::vector<int64_t> rounds_of(const std::vector<int>& ranks, int rank, int num_ranks) {
  std::vector<int64_t> counts(static_cast<size_t>(num_ranks), 0), mine;
  for (size_t index = 0; index < ranks.size(); ++index) {
    ++counts[static_cast<size_t>(ranks[index])];
    if (ranks[index] == rank) mine.push_back(static_cast<int64_t>(index));
  }
  mine.resize(static_cast<size_t>(*std::max_element(counts.begin(), counts.end())), -1);
  return mine;
}

}  // namespace graft
