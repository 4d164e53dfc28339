#include "data/tokenizers/merge_table.h"

#include <array>
#include <bit>
#include <queue>

namespace graft {
namespace {

constexpr size_t kShort = 64;

uint64_t key_of(int32_t left, int32_t right) { return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right); }

}  // namespace

MergeTable::MergeTable(const std::vector<Merge>& merges) : slots_(std::bit_ceil(merges.size() * 2 + 2)) {
  for (const Merge& merge : merges) {
    const uint64_t key = key_of(merge.left, merge.right);
    slots_[slot_of(key)] = {key, {merge.rank, merge.joined}};
  }
}

size_t MergeTable::slot_of(uint64_t key) const {
  const size_t mask = slots_.size() - 1;
  uint64_t hash = key * 0x9E3779B97F4A7C15ull;
  hash ^= hash >> 32;
  size_t slot = hash & mask;
  while (slots_[slot].key != kEmpty && slots_[slot].key != key) slot = (slot + 1) & mask;
  return slot;
}

MergeTable::Joined MergeTable::find(int32_t left, int32_t right) const { return slots_[slot_of(key_of(left, right))].value; }

void MergeTable::apply(std::vector<int32_t>& ids, size_t first) const {
  if (ids.size() - first <= kShort) {
    apply_short(ids, first);
  } else {
    apply_long(ids, first);
  }
}

void MergeTable::apply_short(std::vector<int32_t>& ids, size_t first) const {
  std::array<Joined, kShort> pairs;  // pairs[i] joins parts i and i+1
  int32_t* parts = ids.data() + first;
  size_t count = ids.size() - first;
  for (size_t i = 0; i + 1 < count; ++i) pairs[i] = find(parts[i], parts[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].rank == kNoRank) break;
    parts[best] = pairs[best].id;
    --count;
    for (size_t i = best + 1; i < count; ++i) {
      parts[i] = parts[i + 1];
      pairs[i - 1] = pairs[i];
    }
    if (best > 0) pairs[best - 1] = find(parts[best - 1], parts[best]);
    if (best + 1 < count) pairs[best] = find(parts[best], parts[best + 1]);
  }
  ids.resize(first + count);
}

void MergeTable::apply_long(std::vector<int32_t>& ids, size_t first) const {
  struct Part {
    int32_t id;
    uint32_t previous, next;  // kNone at the ends
  };
  struct Candidate {
    uint32_t rank, position;
    int32_t joined, left, right;  // what stood there when it was found; a candidate that no longer fits is passed over
    bool operator<(const Candidate& other) const { return rank != other.rank ? rank > other.rank : position > other.position; }
  };
  constexpr uint32_t kNone = ~0u;
  const auto count = static_cast<uint32_t>(ids.size() - first);
  std::vector<Part> parts(count);
  std::priority_queue<Candidate> candidates;  // the least rank, then the leftmost, on top
  const auto consider = [&](uint32_t position) {
    const uint32_t next = parts[position].next;
    if (next == kNone) return;
    const Joined found = find(parts[position].id, parts[next].id);
    if (found.rank != kNoRank) candidates.push({found.rank, position, found.id, parts[position].id, parts[next].id});
  };
  for (uint32_t i = 0; i < count; ++i) parts[i] = {ids[first + i], i == 0 ? kNone : i - 1, i + 1 == count ? kNone : i + 1};
  for (uint32_t i = 0; i < count; ++i) consider(i);
  while (!candidates.empty()) {
    const Candidate top = candidates.top();
    candidates.pop();
    Part& left = parts[top.position];
    if (left.id != top.left || left.next == kNone || parts[left.next].id != top.right) continue;
    Part& right = parts[left.next];
    left.id = top.joined;
    left.next = right.next;
    right.id = -1;  // no candidate fits it any more
    if (left.next != kNone) parts[left.next].previous = top.position;
    consider(top.position);
    if (left.previous != kNone) consider(left.previous);
  }
  ids.resize(first);
  for (uint32_t i = 0; i != kNone; i = parts[i].next) ids.push_back(parts[i].id);
}

}  // namespace graft
