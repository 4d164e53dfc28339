// The merges of byte-pair encoding: the pair of neighbours of the least rank is joined (the leftmost of equal ones), until no pair
// is known. Sennrich et al. 2016, arXiv:1508.07909.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace graft {

struct Merge {
  int32_t left = 0, right = 0, joined = 0;
  uint32_t rank = 0;
};

class MergeTable {
 public:
  MergeTable() = default;
  // Of a pair that is listed twice the last one counts, as in the reference library.
  explicit MergeTable(const std::vector<Merge>& merges);

  // Joins among ids[first], ids[first + 1], ... in place. Time O(n^2) below 64 symbols, else O(n log n).
  void apply(std::vector<int32_t>& ids, size_t first) const;

 private:
  struct Joined {
    uint32_t rank;
    int32_t id;
  };
  struct Slot {
    uint64_t key = kEmpty;
    Joined value{kNoRank, -1};
  };
  static constexpr uint64_t kEmpty = ~0ull;
  static constexpr uint32_t kNoRank = ~0u;
  size_t slot_of(uint64_t key) const;
  Joined find(int32_t left, int32_t right) const;
  void apply_short(std::vector<int32_t>& ids, size_t first) const;
  void apply_long(std::vector<int32_t>& ids, size_t first) const;

  std::vector<Slot> slots_ = std::vector<Slot>(2);  // open addressing, at most half full
};

}  // namespace graft
