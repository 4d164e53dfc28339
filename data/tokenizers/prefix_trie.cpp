#include <algorithm>

#include "data/tokenizers/unigram_model.h"

namespace graft {

PrefixTrie::PrefixTrie(const std::vector<std::pair<std::string_view, int32_t>>& keys) {
  struct Range {  // the keys that share the first `depth` bytes
    size_t begin, end, depth;
    uint32_t node;
  };
  cells_.assign(512, {});
  cells_[kRoot].parent = kRoot;
  uint32_t first_free = 1;
  std::vector<Range> work = {{0, keys.size(), 0, kRoot}};
  for (size_t done = 0; done < work.size(); ++done) {  // breadth first: the cells of short keys lie close together
    Range range = work[done];
    if (range.begin < range.end && keys[range.begin].first.size() == range.depth) {
      cells_[range.node].value = keys[range.begin].second;
      ++range.begin;
    }
    std::vector<Range> children;
    for (size_t i = range.begin; i < range.end; ++i) {
      const char byte = keys[i].first[range.depth];
      if (children.empty() || keys[children.back().begin].first[range.depth] != byte) children.push_back({i, i, range.depth + 1, 0});
      children.back().end = i + 1;
    }
    if (children.empty()) {
      cells_[range.node].base = 0;  // its children would be those of the root; their parent is not this node
      continue;
    }
    const auto byte_of = [&](const Range& child) { return static_cast<unsigned char>(keys[child.begin].first[range.depth]); };
    while (cells_[first_free].parent != kFree) {
      if (++first_free + 256 >= cells_.size()) cells_.resize(cells_.size() * 2);
    }
    const unsigned char lowest = byte_of(children.front());
    uint32_t base = first_free > lowest ? first_free - lowest : 1;
    for (size_t tries = 0;; ++base) {
      if (base + 512 >= cells_.size()) cells_.resize(cells_.size() * 2);
      if (std::all_of(children.begin(), children.end(), [&](const Range& child) { return cells_[base + byte_of(child)].parent == kFree; })) break;
      // A crowded region is left alone after a while: building stays linear.
      if (++tries == 256) first_free = std::max(first_free, base);
    }
    cells_[range.node].base = base;
    for (Range& child : children) {
      child.node = base + byte_of(child);
      cells_[child.node].parent = range.node;
      work.push_back(child);
    }
  }
  cells_.resize(cells_.size() + 256);
}

}  // namespace graft
