// Matrices of random blocks for kernels that decode them, and what the CPU's decoders (proven against gguf, torch and formulas by tests/kernels/plain) make
// of them.
#pragma once
#include <random>
#include <vector>

#include "kernels/quantized/dequantize_blocks.h"
#include "tests/emulator/buffer.h"
#include "tests/support/random_blocks.h"

namespace graft::emulator {

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
      for (auto& block : own) block = test::random_block<Block>(random);
      const auto* bytes = reinterpret_cast<const unsigned char*>(own.data());
      std::copy(bytes, bytes + blocks.size(), blocks.data());
      decode_blocks(own.data(), static_cast<int64_t>(own.size()), values.data());
    });
  }
};

}  // namespace graft::emulator
