#include "kernels/quantized/dequantize.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/common/error.h"
#include "kernels/quantized/dequantize_blocks.h"
#include "kernels/quantized/simd_clones.h"

namespace graft {
namespace {

// E4M3 as in the OCP 8-bit formats (fn): bias 7, no infinity, all ones is NaN.
GRAFT_INLINE_IN_CLONES float f8e4m3_to_float(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80) << 24;
  const uint32_t normal = (static_cast<uint32_t>(code & 0x7f) << 20) + (120u << 23);
  const uint32_t small = std::bit_cast<uint32_t>(static_cast<float>(code & 7) * 0x1p-9f);
  const uint32_t bits = (code & 0x78) == 0 ? small : (code & 0x7f) == 0x7f ? 0x7fc00000u : normal;
  return std::bit_cast<float>(bits | sign);
}

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
      for (int64_t i = 0; i < n; ++i) store(f8e4m3_to_float(load<uint8_t>(source, i)), out[i]);
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
  const int64_t num_blocks = num_elements / layout.block_elements;
  const void* blocks = source;
  switch (type) {
    case TensorType::kF64:
    case TensorType::kF32:
    case TensorType::kF16:
    case TensorType::kBF16:
    case TensorType::kF8E4M3:
    case TensorType::kF8E5M2:
      return decode_plain(type, source, num_elements, out);
    case TensorType::kQ4_0:
      return decode_q4_0(static_cast<const BlockQ4_0*>(blocks), num_blocks, out);
    case TensorType::kQ4_1:
      return decode_q4_1(static_cast<const BlockQ4_1*>(blocks), num_blocks, out);
    case TensorType::kQ5_0:
      return decode_q5_0(static_cast<const BlockQ5_0*>(blocks), num_blocks, out);
    case TensorType::kQ5_1:
      return decode_q5_1(static_cast<const BlockQ5_1*>(blocks), num_blocks, out);
    case TensorType::kQ8_0:
      return decode_q8_0(static_cast<const BlockQ8_0*>(blocks), num_blocks, out);
    case TensorType::kQ2_K:
      return decode_q2_k(static_cast<const BlockQ2_K*>(blocks), num_blocks, out);
    case TensorType::kQ3_K:
      return decode_q3_k(static_cast<const BlockQ3_K*>(blocks), num_blocks, out);
    case TensorType::kQ4_K:
      return decode_q4_k(static_cast<const BlockQ4_K*>(blocks), num_blocks, out);
    case TensorType::kQ5_K:
      return decode_q5_k(static_cast<const BlockQ5_K*>(blocks), num_blocks, out);
    case TensorType::kQ6_K:
      return decode_q6_k(static_cast<const BlockQ6_K*>(blocks), num_blocks, out);
    case TensorType::kMXFP4:
      return decode_mxfp4(static_cast<const BlockMXFP4*>(blocks), num_blocks, out);
    case TensorType::kI64:
    case TensorType::kI32:
    case TensorType::kI16:
    case TensorType::kI8:
    case TensorType::kU8:
    case TensorType::kBool:
      break;
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
