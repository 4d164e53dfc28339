#include "kernels/quantized/dequantize.h"

#include <cstring>

#include "kernels/common/error.h"
#include "kernels/quantized/dequantize_blocks.h"
#include "kernels/quantized/host_block.h"
#include "kernels/quantized/simd_clones.h"

namespace graft {
namespace {

GRAFT_INLINE_IN_CLONES float widen(double value) { return static_cast<float>(value); }
GRAFT_INLINE_IN_CLONES void store(float value, float& destination) { destination = value; }
GRAFT_INLINE_IN_CLONES void store(float value, uint16_t& destination) { destination = float_to_bf16(value); }

// Element i of an unaligned array.
template <typename T>
GRAFT_INLINE_IN_CLONES T load(const std::byte* source, int64_t i) {
  T value;
  std::memcpy(&value, source + i * sizeof(T), sizeof(T));
  return value;
}

template <typename Out>
GRAFT_INLINE_IN_CLONES void plain_rows(TensorType type, const std::byte* source, int64_t n, Out* __restrict out) {
  switch (type) {
    case TensorType::kF64:
      for (int64_t i = 0; i < n; ++i) store(widen(load<double>(source, i)), out[i]);
      break;
    case TensorType::kF32:
      for (int64_t i = 0; i < n; ++i) store(load<float>(source, i), out[i]);
      break;
    case TensorType::kF16:
      for (int64_t i = 0; i < n; ++i) store(half_to_float(load<uint16_t>(source, i)), out[i]);
      break;
    case TensorType::kBF16:
      for (int64_t i = 0; i < n; ++i) store(bf16_to_float(load<uint16_t>(source, i)), out[i]);
      break;
    case TensorType::kF8E4M3:
      for (int64_t i = 0; i < n; ++i) store(float_of_e4m3<HostBlock>(load<uint8_t>(source, i)), out[i]);
      break;
    default:  // kF8E5M2 is the upper half of a float16
      for (int64_t i = 0; i < n; ++i) store(half_to_float(static_cast<uint16_t>(load<uint8_t>(source, i) << 8)), out[i]);
      break;
  }
}

GRAFT_SIMD_CLONES void decode_plain(TensorType type, const std::byte* source, int64_t n, float* out) {
  plain_rows(type, source, n, out);
}
GRAFT_SIMD_CLONES void decode_plain(TensorType type, const std::byte* source, int64_t n, uint16_t* out) {
  plain_rows(type, source, n, out);
}

template <typename Out>
void dispatch(TensorType type, const std::byte* source, int64_t num_elements, Out* out) {
  const TensorTypeInfo& layout = info(type);
  if (num_elements < 0 || num_elements % layout.block_elements != 0)
    fail("quantized", "expected a whole number of {} blocks of {} elements, got {} elements — read whole rows", layout.name,
         layout.block_elements, num_elements);
  const bool is_blocks = for_block_form(type, [&](auto form) {
    const void* blocks = source;
    decode_blocks(static_cast<const typename decltype(form)::Block*>(blocks), num_elements / layout.block_elements, out);
  });
  if (is_blocks) return;
  switch (type) {
    case TensorType::kF64:
    case TensorType::kF32:
    case TensorType::kF16:
    case TensorType::kBF16:
    case TensorType::kF8E4M3:
    case TensorType::kF8E5M2:
      return decode_plain(type, source, num_elements, out);
    default: break;
  }
  fail("quantized", "expected a tensor of real numbers (F32, BF16, Q4_K, ...), got {} — this tensor cannot be a weight",
       layout.name);
}

}  // namespace

void dequantize(TensorType type, const std::byte* source, int64_t num_elements, float* destination) {
  if (type == TensorType::kF32 && num_elements > 0) {
    std::memcpy(destination, source, static_cast<size_t>(num_elements) * sizeof(float));
    return;
  }
  dispatch(type, source, num_elements, destination);
}

void dequantize_bf16(TensorType type, const std::byte* source, int64_t num_elements, uint16_t* destination) {
  if (type == TensorType::kBF16 && num_elements > 0) {
    std::memcpy(destination, source, static_cast<size_t>(num_elements) * sizeof(uint16_t));
    return;
  }
  dispatch(type, source, num_elements, destination);
}

}  // namespace graft
