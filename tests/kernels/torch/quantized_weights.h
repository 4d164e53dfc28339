// Weights of random blocks, in every form.
#pragma once
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "kernels/frozen_weight/frozen_weight.h"
#include "tests/support/random_blocks.h"

namespace graft::testing {

inline FrozenWeight quantized_weight(TensorType form, int64_t rows, int64_t columns, uint64_t seed) {
  const auto& layout = info(form);
  auto bytes = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(rows * columns / layout.block_elements * layout.block_bytes));
  std::mt19937 random(static_cast<uint32_t>(seed));
  for_block_form(form, [&](auto of) {
    using Block = typename decltype(of)::Block;
    for (size_t at = 0; at < bytes->size(); at += sizeof(Block)) {
      const auto block = test::random_block<Block>(random);
      std::memcpy(bytes->data() + at, &block, sizeof block);
    }
  });
  return FrozenWeight(form, rows, columns, bytes->data(), bytes);
}

}  // namespace graft::testing
