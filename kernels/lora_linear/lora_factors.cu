// The factors of all parts as the other kernels take them: in the type of the rows, one under the other, padded to whole 16 bytes. A thread an element.
#include "kernels/lora_linear/lora_sums.cuh"

namespace graft::cuda {
namespace {

template <typename Element>
GRAFT_KERNEL(kSumThreads) lora_factors(const LoraLayer layer, int64_t a_stride) {
  const int64_t a_count = layer.ranks * a_stride;
  int64_t index = block_in_grid() * kSumThreads + thread_in_block();
  if (index < a_count) {
    const int rank = static_cast<int>(index / a_stride);
    const int64_t input = index % a_stride;
    const LoraPart& part = layer.parts[part_of_rank(layer, rank)];
    const bool exists = rank - part.first_rank < part.ranks && input < layer.inputs;
    const float value = exists ? load(part.a_RC + (rank - part.first_rank) * layer.inputs + input) : 0.0F;
    store(static_cast<Element*>(layer.a_RC) + index, from_float<Element>(value));
    return;
  }
  index -= a_count;
  if (index >= layer.outputs * layer.b_stride) return;
  const int64_t output = index / layer.b_stride;
  const int rank = static_cast<int>(index % layer.b_stride);
  const LoraPart& part = layer.parts[part_of_output(layer, output)];
  const float value = rank < part.ranks ? load(part.b_OR + (output - part.first_output) * part.ranks + rank) : 0.0F;
  store(static_cast<Element*>(layer.b_OR) + index, from_float<Element>(value));
}

}  // namespace

const char* launch(const LoraFactors& arguments, void* stream) {
  const auto& layer = arguments.layer;
  const int64_t a_stride = lora_padded(layer.inputs), blocks = blocks_for(layer.ranks * a_stride + layer.outputs * layer.b_stride);
  if (blocks == 0) return nullptr;
  for_row_type(layer.type, [&](auto element) { LAUNCH(lora_factors<decltype(element)>, blocks, kSumThreads, 0, stream, layer, a_stride); });
  return launch_error();
}

}  // namespace graft::cuda
