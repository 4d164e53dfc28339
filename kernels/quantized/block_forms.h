// The forms whose rows are blocks: type and layout of each. C++17.
#pragma once
#include "kernels/quantized/block_layouts.h"
#include "kernels/quantized/tensor_type.h"

#define GRAFT_BLOCK_FORMS(DO)                                                                                                          \
  DO(kQ4_0, BlockQ4_0) DO(kQ4_1, BlockQ4_1) DO(kQ5_0, BlockQ5_0) DO(kQ5_1, BlockQ5_1) DO(kQ8_0, BlockQ8_0)                             \
  DO(kQ2_K, BlockQ2_K) DO(kQ3_K, BlockQ3_K) DO(kQ4_K, BlockQ4_K) DO(kQ5_K, BlockQ5_K) DO(kQ6_K, BlockQ6_K)                             \
  DO(kMXFP4, BlockMXFP4) DO(kIQ4_NL, BlockIQ4_NL) DO(kIQ4_XS, BlockIQ4_XS) DO(kNF4, BlockNF4) DO(kF8E4M3Scaled, BlockF8E4M3)           \
  DO(kI8Scaled, BlockI8) DO(kNVFP4, BlockNVFP4) DO(kI4_32, BlockI4<32>) DO(kI4_64, BlockI4<64>) DO(kI4_128, BlockI4<128>)               \
  DO(kI4_32Zero, BlockI4Zero<32>) DO(kI4_64Zero, BlockI4Zero<64>) DO(kI4_128Zero, BlockI4Zero<128>)

namespace graft {

template <typename BlockLayout>
struct BlockForm {
  using Block = BlockLayout;
};

// f(BlockForm<Block>()) for a type whose rows are blocks; false for all others.
template <typename Function>
bool for_block_form(TensorType type, const Function& f) {
  switch (type) {
#define GRAFT_CASE(type, Block) \
  case TensorType::type: f(BlockForm<Block>()); return true;
    GRAFT_BLOCK_FORMS(GRAFT_CASE)
#undef GRAFT_CASE
    default: return false;
  }
}

}  // namespace graft
