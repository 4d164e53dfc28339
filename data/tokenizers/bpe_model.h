// Byte-level BPE as in GPT-2: a piece of text starts as its bytes, and the merges join them.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "data/tokenizers/merge_table.h"

namespace graft {

class BpeModel {
 public:
  BpeModel() = default;
  // byte_ids[b]: the token of byte b, or -1. unknown: the token for bytes that have none, or -1, which leaves them out, as the
  // reference library does; fuse_unknown makes one of several in a row.
  BpeModel(const std::array<int32_t, 256>& byte_ids, const std::vector<Merge>& merges, int32_t unknown, bool fuse_unknown)
      : byte_ids_(byte_ids), merges_(merges), unknown_(unknown), fuse_unknown_(fuse_unknown) {}

  // Appends the ids of one piece.
  void encode(std::string_view piece, std::vector<int32_t>& ids) const;

 private:
  void start(std::string_view piece, std::vector<int32_t>& ids) const;

  std::array<int32_t, 256> byte_ids_{};
  MergeTable merges_;
  int32_t unknown_ = -1;
  bool fuse_unknown_ = false;
};

}  // namespace graft
