// W in the type of the rows. A thread decodes kDecoded neighbours at a time and stores them in packs of 16 bytes, its neighbours the next ones.
#include "kernels/cuda/rows.cuh"
#include "kernels/quantized/block_forms.h"
#include "kernels/quantized_product/global_block.cuh"

namespace graft::cuda {
namespace {

constexpr int kThreads = 256, kTurns = 4, kOfBlock = kThreads * kTurns * kDecoded;
constexpr int64_t blocks_for(int64_t elements) { return (elements + kOfBlock - 1) / kOfBlock; }

template <typename Block, typename Element>
GRAFT_KERNEL(kThreads) dequantize_matrix(const DequantizeMatrix arguments) {
  const int64_t count = arguments.matrix.rows * arguments.matrix.columns, first = block_in_grid() * kOfBlock + thread_in_block() * kDecoded;
  auto* values = static_cast<Element*>(arguments.values);
  GRAFT_UNROLL
  for (int turn = 0; turn < kTurns; ++turn) {
    const int64_t element = first + turn * kThreads * kDecoded;
    if (element >= count) return;
    float decoded[kDecoded];
    decode_elements<Block>(arguments.matrix, element, decoded);
    for_rounded_packs<Element>(decoded, [&](int k, const auto& pack) { store(reinterpret_cast<Pack<Element, kWidestPack<Element>>*>(values + element + k), pack); });
  }
}

}  // namespace

const char* launch(const DequantizeMatrix& arguments, void* stream) {
  const int64_t blocks = blocks_for(arguments.matrix.rows * arguments.matrix.columns);
  const bool known = for_block_form(arguments.matrix.form, [&](auto form) {
    using Block = typename decltype(form)::Block;
    for_row_type(arguments.type, [&](auto element) {
      if (blocks > 0) LAUNCH((dequantize_matrix<Block, decltype(element)>), blocks, kThreads, 0, stream, arguments);
    });
  });
  return known ? launch_error() : "no kernel decodes this form";
}

}  // namespace graft::cuda
