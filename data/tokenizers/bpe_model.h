// Byte-pair encoding: a piece of text starts as its bytes, and the pair of neighbours whose merge was learned first is joined
// (the leftmost of equal ones), until no pair is known. Sennrich et al. 2016, arXiv:1508.07909; byte-level as in GPT-2.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

class BpeModel {
 public:
  struct Merge {
    int32_t left = 0, right = 0, joined = 0;
  };

  BpeModel() = default;
  // byte_ids[b]: the token of byte b, or -1. merges: in order of rank. unknown: the token for bytes that have none, or -1, which
  // leaves them out, as the reference library does; fuse_unknown makes one of several in a row.
  BpeModel(const std::array<int32_t, 256>& byte_ids, const std::vector<Merge>& merges, int32_t unknown, bool fuse_unknown);

  // Appends the ids of one piece. Time O(n^2) below 64 bytes, else O(n log n).
  void encode(std::string_view piece, std::vector<int32_t>& ids) const;

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
  void start(std::string_view piece, std::vector<int32_t>& ids) const;
  void merge_short(std::vector<int32_t>& ids, size_t first) const;
  void merge_long(std::vector<int32_t>& ids, size_t first) const;

  std::array<int32_t, 256> byte_ids_{};
  std::vector<Slot> slots_;  // open addressing, at most half full
  int32_t unknown_ = -1;
  bool fuse_unknown_ = false;
};

}  // namespace graft
