#include "kernels/quantized/tensor_type.h"

#include <array>

#include "kernels/quantized/block_layouts.h"

namespace graft {
namespace {

struct Row {
  TensorType type;
  TensorTypeInfo info;
  int32_t ggml;  // number in ggml's enum, -1 where it has none
};

template <typename Block>
constexpr Row block_row(TensorType type, std::string_view name, int32_t ggml) {
  return {type, {name, Block::kElements, sizeof(Block), true}, ggml};
}

constexpr Row plain_row(TensorType type, std::string_view name, int64_t bytes, int32_t ggml) {
  return {type, {name, 1, bytes, false}, ggml};
}

// In the order of the enum, so that a type is its own index.
constexpr std::array kRows = {
    plain_row(TensorType::kF64, "F64", 8, 28),
    plain_row(TensorType::kF32, "F32", 4, 0),
    plain_row(TensorType::kF16, "F16", 2, 1),
    plain_row(TensorType::kBF16, "BF16", 2, 30),
    plain_row(TensorType::kI64, "I64", 8, 27),
    plain_row(TensorType::kI32, "I32", 4, 26),
    plain_row(TensorType::kI16, "I16", 2, 25),
    plain_row(TensorType::kI8, "I8", 1, 24),
    plain_row(TensorType::kU8, "U8", 1, -1),
    plain_row(TensorType::kBool, "BOOL", 1, -1),
    plain_row(TensorType::kF8E4M3, "F8_E4M3", 1, -1),
    plain_row(TensorType::kF8E5M2, "F8_E5M2", 1, -1),
    block_row<BlockQ4_0>(TensorType::kQ4_0, "Q4_0", 2),
    block_row<BlockQ4_1>(TensorType::kQ4_1, "Q4_1", 3),
    block_row<BlockQ5_0>(TensorType::kQ5_0, "Q5_0", 6),
    block_row<BlockQ5_1>(TensorType::kQ5_1, "Q5_1", 7),
    block_row<BlockQ8_0>(TensorType::kQ8_0, "Q8_0", 8),
    block_row<BlockQ2_K>(TensorType::kQ2_K, "Q2_K", 10),
    block_row<BlockQ3_K>(TensorType::kQ3_K, "Q3_K", 11),
    block_row<BlockQ4_K>(TensorType::kQ4_K, "Q4_K", 12),
    block_row<BlockQ5_K>(TensorType::kQ5_K, "Q5_K", 13),
    block_row<BlockQ6_K>(TensorType::kQ6_K, "Q6_K", 14),
    block_row<BlockMXFP4>(TensorType::kMXFP4, "MXFP4", 39),
    block_row<BlockIQ4_NL>(TensorType::kIQ4_NL, "IQ4_NL", 20),
    block_row<BlockIQ4_XS>(TensorType::kIQ4_XS, "IQ4_XS", 23),
    block_row<BlockNF4>(TensorType::kNF4, "NF4", -1),
    block_row<BlockF8E4M3>(TensorType::kF8E4M3Scaled, "F8_E4M3_SCALED", -1),
    block_row<BlockI8>(TensorType::kI8Scaled, "I8_SCALED", -1),
    block_row<BlockNVFP4>(TensorType::kNVFP4, "NVFP4", -1),
    block_row<BlockI4<32>>(TensorType::kI4_32, "I4_32", -1),
    block_row<BlockI4<64>>(TensorType::kI4_64, "I4_64", -1),
    block_row<BlockI4<128>>(TensorType::kI4_128, "I4_128", -1),
    block_row<BlockI4Zero<32>>(TensorType::kI4_32Zero, "I4_32_ZERO", -1),
    block_row<BlockI4Zero<64>>(TensorType::kI4_64Zero, "I4_64_ZERO", -1),
    block_row<BlockI4Zero<128>>(TensorType::kI4_128Zero, "I4_128_ZERO", -1),
};

constexpr bool rows_follow_the_enum() {
  for (size_t i = 0; i < kRows.size(); ++i)
    if (static_cast<size_t>(kRows[i].type) != i) return false;
  return kRows.back().type == TensorType::kI4_128Zero;
}
static_assert(rows_follow_the_enum());

}  // namespace

const TensorTypeInfo& info(TensorType type) { return kRows[static_cast<size_t>(type)].info; }

std::optional<TensorType> tensor_type_from_name(std::string_view name) {
  for (const Row& row : kRows)
    if (row.info.name == name) return row.type;
  return std::nullopt;
}

std::optional<TensorType> tensor_type_from_ggml(int32_t ggml_type) {
  if (ggml_type < 0) return std::nullopt;
  for (const Row& row : kRows)
    if (row.ggml == ggml_type) return row.type;
  return std::nullopt;
}

int32_t ggml_number(TensorType type) { return kRows[static_cast<size_t>(type)].ggml; }

}  // namespace graft
