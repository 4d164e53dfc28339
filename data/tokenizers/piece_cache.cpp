#include "data/tokenizers/piece_cache.h"

#include <atomic>
#include <map>

namespace graft {

void PieceCache::remember(std::string_view piece, uint64_t hash, const int32_t* ids, size_t count) {
  if (slots_.empty() || num_pieces_ >= kMostPieces) {
    slots_.assign(kSlots, {});
    num_pieces_ = 0;
    texts_.clear();
    ids_.clear();
  }
  size_t slot = hash % kSlots;
  while (slots_[slot].used) slot = (slot + 1) % kSlots;
  slots_[slot] = {hash, static_cast<uint32_t>(texts_.size()), static_cast<uint32_t>(ids_.size()), static_cast<uint16_t>(piece.size()), static_cast<uint16_t>(count), true};
  ++num_pieces_;
  texts_ += piece;
  ids_.insert(ids_.end(), ids, ids + count);
}

PieceCacheKey::PieceCacheKey() {
  static std::atomic<uint64_t> next{1};
  key_ = next++;
}

PieceCache& PieceCacheKey::of_this_thread() const {
  thread_local std::map<uint64_t, PieceCache> caches;
  const auto found = caches.find(key_);
  if (found != caches.end()) return found->second;
  if (caches.size() >= 8) caches.clear();  // tokenizers come and go in tests
  return caches[key_];
}

}  // namespace graft
