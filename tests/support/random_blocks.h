// Random blocks of every quantised form: any codes, scales of about 0.01, no NaN.
#pragma once
#include <bit>
#include <random>
#include <type_traits>

#include "kernels/quantized/block_forms.h"
#include "kernels/quantized/small_floats.h"

namespace graft::test {

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
  } else if constexpr (std::is_same_v<Block, BlockNVFP4>) {
    block.scales[0] = scale, block.scales[1] = normal(random);
  } else if constexpr (std::is_same_v<decltype(block.scale), float>) {
    block.scale = scale;
  } else {
    block.scale = std::is_same_v<Block, BlockI4<Block::kElements>> ? float_to_bf16(scale) : float_to_half(scale);
  }
  if constexpr (requires { block.minimum; }) block.minimum = float_to_half(normal(random));
  if constexpr (std::is_same_v<Block, BlockF8E4M3>) {
    for (auto& code : block.codes) code = (code & 0x7f) == 0x7f ? 0x35 : code;
  }
  return block;
}

}  // namespace graft::test
