// Matrices of random blocks for kernels that decode them, and what the CPU's decoders (proven against gguf, torch and formulas by tests/kernels/plain) make
// of them.
#pragma once
#include <random>
#include <vector>

#include "kernels/quantized/dequantize_blocks.h"
#include "kernels/quantized/small_floats.h"
#include "tests/emulator/buffer.h"

namespace graft::emulator {

// Any codes, scales of about 0.01.
template <typename Block>
Block random_block(std::mt19937& random) {
  Block block;
  auto* bytes = reinterpret_cast<unsigned char*>(&block);
  for (size_t i = 0; i < sizeof block; ++i) bytes[i] = static_cast<unsigned char>(random());
  std::normal_distribution<float> normal(0, 0.01F);
  const float scale = normal(random);
  if constexpr (requires { block.exponent; }) {
    block.exponent = static_cast<uint8_t>(116 + random() % 8);
  } else if constexpr (requires { block.scale_and_zero; }) {
    block.scale_and_zero = (std::bit_cast<uint32_t>(scale) & 0xffff0000U) | random() % 16;
  } else if constexpr (std::is_same_v<decltype(block.scale), float>) {
    block.scale = scale;
  } else {
    block.scale = std::is_same_v<Block, BlockI4<Block::kElements>> ? float_to_bf16(scale) : float_to_half(scale);
  }
  if constexpr (requires { block.minimum; }) block.minimum = float_to_half(normal(random));
  if constexpr (std::is_same_v<Block, BlockF8E4M3>) {
    for (auto& code : block.codes) code = (code & 0x7f) == 0x7f ? 0x35 : code;   // no NaN
  }
  return block;
}

struct BlockMatrix {
  TensorType form;
  size_t rows, columns;
  Buffer<unsigned char> blocks;   // aligned as cudaMalloc's memory is
  std::vector<float> values;

  BlockMatrix(TensorType type, size_t row_count, size_t column_count, uint32_t seed)
      : form(type), rows(row_count), columns(column_count),
        blocks(row_count * column_count / static_cast<size_t>(info(type).block_elements) * static_cast<size_t>(info(type).block_bytes)), values(rows * columns) {
    std::mt19937 random(seed);
    for_block_form(type, [&](auto of) {
      using Block = typename decltype(of)::Block;
      std::vector<Block> own(values.size() / Block::kElements);
      for (auto& block : own) block = random_block<Block>(random);
      const auto* bytes = reinterpret_cast<const unsigned char*>(own.data());
      std::copy(bytes, bytes + blocks.size(), blocks.data());
      decode_blocks(own.data(), static_cast<int64_t>(own.size()), values.data());
    });
  }
};

}  // namespace graft::emulator
