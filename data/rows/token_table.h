// Encoded rows in three flat arrays: 5 bytes a token, no allocation per row.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "data/rows/packing.h"

namespace graft {

struct TokenTable {
  std::vector<int32_t> ids;
  std::vector<uint8_t> supervised;     // 1: a training target
  std::vector<int64_t> offsets = {0};  // num_rows + 1

  int64_t num_rows() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t length(int64_t row) const { return offsets[static_cast<size_t>(row) + 1] - offsets[static_cast<size_t>(row)]; }
  TokenSpan row(int64_t row) const {
    const auto begin = static_cast<size_t>(offsets[static_cast<size_t>(row)]), size = static_cast<size_t>(length(row));
    return {std::span(ids).subspan(begin, size), std::span(supervised).subspan(begin, size), 1};
  }
  void add(std::span<const int32_t> row_ids, std::span<const uint8_t> row_supervised) {
    ids.insert(ids.end(), row_ids.begin(), row_ids.end());
    supervised.insert(supervised.end(), row_supervised.begin(), row_supervised.end());
    offsets.push_back(static_cast<int64_t>(ids.size()));
  }
  void add_all(const TokenTable& other) {
    for (int64_t index = 0; index < other.num_rows(); ++index) add(other.row(index).ids, other.row(index).supervised);
  }
  bool operator==(const TokenTable&) const = default;
};

}  // namespace graft
