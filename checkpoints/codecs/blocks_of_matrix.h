// What readers and writers of blocks share: blocks of a matrix and their parts, and numbers as bytes.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/quantized/block_layouts.h"
#include "kernels/quantized/small_floats.h"

namespace graft {

constexpr int64_t ceil_divided(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <typename T>
std::vector<std::byte> bytes_of_numbers(const std::vector<T>& numbers) {
  const auto* first = reinterpret_cast<const std::byte*>(numbers.data());
  return {first, first + numbers.size() * sizeof(T)};
}

// Blocks of a matrix, at any alignment.
template <typename Block>
struct Blocks {
  const std::byte* data;
  int64_t columns;

  Block at(int64_t row, int64_t column) const {
    Block block;
    std::memcpy(&block, data + (row * columns + column) / Block::kElements * static_cast<int64_t>(sizeof(Block)), sizeof block);
    return block;
  }
};

// Of a group of INT4: w = (code - zero) * scale.
template <int kGroup>
float scale_of(const BlockI4<kGroup>& block) { return bf16_to_float(block.scale); }
template <int kGroup>
float scale_of(const BlockI4Zero<kGroup>& block) { return std::bit_cast<float>(block.scale_and_zero & 0xffffff00U); }
template <int kGroup>
int zero_of(const BlockI4<kGroup>&) { return 8; }
template <int kGroup>
int zero_of(const BlockI4Zero<kGroup>& block) { return static_cast<int>(block.scale_and_zero & 255); }

// Element i's code of four bits.
template <typename Block>
uint32_t code_of(const Block& block, int64_t i) {
  return block.nibbles[i / 32 * 16 + i % 16] >> i % 32 / 16 * 4 & 15U;
}

}  // namespace graft
