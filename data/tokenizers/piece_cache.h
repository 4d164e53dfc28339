// Each thread remembers the ids of short pieces for each tokenizer: text repeats its words.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

class PieceCache {
 public:
  // Appends the ids of `piece` to `ids`: those remembered, else what `encode` appends.
  template <typename Encode>
  void append(std::string_view piece, std::vector<int32_t>& ids, const Encode& encode) {
    if (piece.size() > kLongestPiece) return encode();
    const uint64_t hash = hash_of(piece);
    if (const Entry* found = find(piece, hash)) {
      const int32_t* begin = ids_.data() + found->first_id;
      ids.insert(ids.end(), begin, begin + found->num_ids);
      return;
    }
    const size_t first = ids.size();
    encode();
    remember(piece, hash, ids.data() + first, ids.size() - first);
  }

 private:
  static constexpr size_t kLongestPiece = 48;   // bytes; longer pieces seldom come again
  static constexpr size_t kSlots = 1 << 16;
  static constexpr size_t kMostPieces = kSlots / 2;
  struct Entry {
    uint64_t hash = 0;
    uint32_t text = 0, first_id = 0;
    uint16_t length = 0, num_ids = 0;
    bool used = false;
  };
  static uint64_t hash_of(std::string_view piece) {
    uint64_t hash = piece.size() * 0x9E3779B97F4A7C15ull;
    const char* at = piece.data();
    size_t left = piece.size();
    const auto mix = [&](uint64_t word) {
      const auto product = static_cast<unsigned __int128>(hash ^ word) * 0xD6E8FEB86659FD93ull;
      hash = static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
    };
    for (; left >= 8; at += 8, left -= 8) {
      uint64_t word;
      std::memcpy(&word, at, 8);
      mix(word);
    }
    uint64_t word = 0;
    std::memcpy(&word, at, left);
    mix(word ^ left << 56);
    return hash;
  }
  const Entry* find(std::string_view piece, uint64_t hash) const {
    if (slots_.empty()) return nullptr;
    for (size_t slot = hash % kSlots; slots_[slot].used; slot = (slot + 1) % kSlots) {
      const Entry& entry = slots_[slot];
      if (entry.hash == hash && entry.length == piece.size() && std::memcmp(texts_.data() + entry.text, piece.data(), piece.size()) == 0) return &entry;
    }
    return nullptr;
  }
  void remember(std::string_view piece, uint64_t hash, const int32_t* ids, size_t count);

  std::vector<Entry> slots_;  // open addressing
  size_t num_pieces_ = 0;
  std::string texts_;
  std::vector<int32_t> ids_;
};

// A tokenizer's name among the caches of a thread.
class PieceCacheKey {
 public:
  PieceCacheKey();
  PieceCache& of_this_thread() const;

 private:
  uint64_t key_;
};

}  // namespace graft
