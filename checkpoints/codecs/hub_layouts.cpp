#include "checkpoints/codecs/hub_layouts.h"

#include <cmath>
#include <cstring>

#include <nlohmann/json.hpp>

#include "checkpoints/codecs/blocks_of_matrix.h"
#include "checkpoints/codecs/int4_layouts.h"
#include "checkpoints/codecs/quantize.h"
#include "checkpoints/codecs/quantize_rows.h"
#include "kernels/common/error.h"
#include "kernels/quantized/block_decoders.h"
#include "kernels/quantized/small_floats.h"

namespace graft {
namespace {

using Bytes = std::vector<std::byte>;
constexpr std::pair<std::string_view, HubLayout> kNames[] = {
    {"compressed-tensors:w4a16", HubLayout::kInt4},     {"compressed-tensors:w4a16-asym", HubLayout::kInt4Zero}, {"compressed-tensors:w8a8", HubLayout::kInt8},
    {"compressed-tensors:fp8", HubLayout::kFp8},        {"compressed-tensors:fp8-block", HubLayout::kFp8Squares}, {"compressed-tensors:nvfp4", HubLayout::kNvfp4},
    {"compressed-tensors:mxfp4", HubLayout::kMxfp4},    {"gptq", HubLayout::kGptq}, {"awq", HubLayout::kAwq}, {"nf4", HubLayout::kNf4}};
constexpr std::pair<std::string_view, int64_t> kGroups[] = {{"", 0}, {":g32", 32}, {":g64", 64}, {":g128", 128}};
constexpr int64_t kSquare = kHubSlab;

template <typename Block>
std::vector<Bytes> scaled_bytes(const std::byte* data, int64_t rows, int64_t columns, int64_t scale_rows, int64_t scale_columns) {
  const Blocks<Block> blocks{data, columns};
  Bytes codes(static_cast<size_t>(rows * columns));
  std::vector<uint16_t> scales;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; column += Block::kElements) {
      const auto block = blocks.at(row, column);
      std::memcpy(codes.data() + row * columns + column, block.codes, sizeof block.codes);
      if (row % scale_rows == 0 && column % scale_columns == 0) scales.push_back(float_to_bf16(block.scale));
    }
  }
  return {std::move(codes), bytes_of_numbers(scales)};
}

// One scale, a bfloat16 number, for each scale_rows x scale_columns.
template <typename Block>
bool shares_scales(const std::byte* data, int64_t rows, int64_t columns, int64_t scale_rows, int64_t scale_columns) {
  const Blocks<Block> blocks{data, columns};
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; column += Block::kElements) {
      const float scale = blocks.at(row, column).scale;
      if (scale != blocks.at(row - row % scale_rows, column - column % scale_columns).scale || scale != bf16_to_float(float_to_bf16(scale))) return false;
    }
  }
  return true;
}

// Neighbours in a byte; the even one, or the first, in the low nibble or the high one.
template <typename Block>
Bytes pairs_of(const Blocks<Block>& blocks, int64_t rows, bool even_is_low) {
  Bytes packed(static_cast<size_t>(rows * blocks.columns / 2));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < blocks.columns; column += Block::kElements) {
      const auto block = blocks.at(row, column);
      for (int i = 0; i < Block::kElements; i += 2) {
        const auto even = code_of(block, i), odd = code_of(block, i + 1);
        packed[static_cast<size_t>((row * blocks.columns + column + i) / 2)] = static_cast<std::byte>(even_is_low ? even | odd << 4 : odd | even << 4);
      }
    }
  }
  return packed;
}

std::vector<Bytes> nvfp4(const std::byte* data, int64_t rows, int64_t columns, float global_scale) {
  const Blocks<BlockNVFP4> blocks{data, columns};
  std::vector<uint8_t> scales;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; column += BlockNVFP4::kElements) {
      for (const float scale : blocks.at(row, column).scales) scales.push_back(e4m3_of(scale * global_scale));
    }
  }
  return {pairs_of(blocks, rows, true), bytes_of_numbers(scales), bytes_of_numbers(std::vector<float>{global_scale})};
}

std::vector<Bytes> mxfp4(const std::byte* data, int64_t rows, int64_t columns) {
  const Blocks<BlockMXFP4> blocks{data, columns};
  std::vector<uint8_t> exponents;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; column += BlockMXFP4::kElements) exponents.push_back(blocks.at(row, column).exponent);
  }
  return {pairs_of(blocks, rows, true), bytes_of_numbers(exponents)};
}

std::string nf4_state(int64_t rows, int64_t columns) {
  const nlohmann::ordered_json state = {{"quant_type", "nf4"}, {"blocksize", BlockNF4::kElements}, {"dtype", "bfloat16"}, {"shape", {rows, columns}}};
  return state.dump();
}

std::vector<Bytes> nf4(const std::byte* data, int64_t rows, int64_t columns) {
  const Blocks<BlockNF4> blocks{data, columns};
  std::vector<float> statistics, values;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; column += BlockNF4::kElements) statistics.push_back(blocks.at(row, column).scale);
  }
  for (int code = 0; code < 16; ++code) values.push_back(normal_float_4(code));
  const auto state = nf4_state(rows, columns);
  return {pairs_of(blocks, rows, false), bytes_of_numbers(statistics), bytes_of_numbers(values), bytes_of_numbers(std::vector<char>(state.begin(), state.end()))};
}

bool has_groups(HubLayout layout) {
  return layout == HubLayout::kInt4 || layout == HubLayout::kInt4Zero || layout == HubLayout::kGptq || layout == HubLayout::kAwq;
}

}  // namespace

std::vector<std::string> hub_form_names() {
  std::vector<std::string> names;
  for (const auto& [name, layout] : kNames) {
    for (const auto& [ending, group] : kGroups)
      if (group == 0 || has_groups(layout)) names.push_back(std::string(name) + std::string(ending));
  }
  return names;
}

std::optional<HubForm> hub_form_from_name(std::string_view name) {
  for (const auto& [own, layout] : kNames) {
    for (const auto& [ending, group] : kGroups)
      if ((group == 0 || has_groups(layout)) && name == std::string(own) + std::string(ending)) return HubForm{layout, group};
  }
  return std::nullopt;
}

bool hub_takes_importance(HubLayout layout) { return has_groups(layout) || layout == HubLayout::kNvfp4 || layout == HubLayout::kMxfp4; }

bool rounds_rows_alone(HubLayout layout) { return layout != HubLayout::kFp8Squares && layout != HubLayout::kNvfp4; }

TensorType hub_block_type(HubLayout layout, int64_t group) {
  const auto of_group = [&](TensorType of_32, TensorType of_64, TensorType of_128) { return group == 32 ? of_32 : group == 64 ? of_64 : of_128; };
  switch (layout) {
    case HubLayout::kInt4:
    case HubLayout::kGptq: return of_group(TensorType::kI4_32, TensorType::kI4_64, TensorType::kI4_128);
    case HubLayout::kInt4Zero:
    case HubLayout::kAwq: return of_group(TensorType::kI4_32Zero, TensorType::kI4_64Zero, TensorType::kI4_128Zero);
    case HubLayout::kInt8: return TensorType::kI8Scaled;
    case HubLayout::kFp8:
    case HubLayout::kFp8Squares: return TensorType::kF8E4M3Scaled;
    case HubLayout::kNvfp4: return TensorType::kNVFP4;
    case HubLayout::kMxfp4: return TensorType::kMXFP4;
    case HubLayout::kNf4: return TensorType::kNF4;
  }
  return TensorType::kF32;
}

bool fits_hub_layout(HubLayout layout, int64_t group, int64_t rows, int64_t columns) {
  const bool packs_rows = layout == HubLayout::kGptq || layout == HubLayout::kAwq;
  const int64_t multiple = layout == HubLayout::kFp8Squares ? kSquare : info(hub_block_type(layout, group)).block_elements;
  return columns % multiple == 0 && (!packs_rows || rows % 8 == 0);
}

void quantize_for_hub(HubLayout layout, int64_t group, const float* values, int64_t rows, int64_t columns, float global_scale, std::span<const float> importance, std::byte* blocks) {
  if (rounds_rows_alone(layout)) return quantize(hub_block_type(layout, group), values, rows, columns, blocks, importance);
  for (int64_t i = 0; i < rows * columns; ++i)
    if (!std::isfinite(values[i])) fail("codecs", "expected finite weights, got {} in row {}, column {} — the weights diverged; train with a lower learning rate", values[i], i / columns, i % columns);
  if (layout == HubLayout::kFp8Squares) {
    for (int64_t first = 0; first < rows; first += kHubSlab) {
      const auto count = std::min(kHubSlab, rows - first);
      std::vector<BlockF8E4M3> own(static_cast<size_t>(count * columns / BlockF8E4M3::kElements));
      encode_squares(values + first * columns, count, columns, own.data());
      std::memcpy(blocks + first * columns / BlockF8E4M3::kElements * static_cast<int64_t>(sizeof own[0]), own.data(), own.size() * sizeof own[0]);
    }
    return;
  }
  std::vector<BlockNVFP4> own(static_cast<size_t>(columns / BlockNVFP4::kElements));
  for (int64_t row = 0; row < rows; ++row, blocks += own.size() * sizeof own[0]) {
    encode_row(values + row * columns, columns, global_scale, importance.empty() ? nullptr : importance.data(), own.data());
    std::memcpy(blocks, own.data(), own.size() * sizeof own[0]);
  }
}

bool keeps_blocks(HubLayout layout, const std::byte* blocks, int64_t rows, int64_t columns) {
  switch (layout) {
    case HubLayout::kInt4:
    case HubLayout::kMxfp4:
    case HubLayout::kNf4: return true;
    case HubLayout::kInt8: return shares_scales<BlockI8>(blocks, rows, columns, 1, columns);
    case HubLayout::kFp8: return shares_scales<BlockF8E4M3>(blocks, rows, columns, 1, columns);
    case HubLayout::kFp8Squares: return shares_scales<BlockF8E4M3>(blocks, rows, columns, kSquare, kSquare);
    default: return false;
  }
}

std::vector<TensorDeclaration> hub_tensors(HubLayout layout, int64_t group, const std::string& module, int64_t rows, int64_t columns) {
  const auto named = [&](const char* ending, TensorType type, std::vector<int64_t> shape) { return TensorDeclaration{module + ending, type, std::move(shape)}; };
  switch (layout) {
    case HubLayout::kInt4:
    case HubLayout::kInt4Zero: {
      std::vector<TensorDeclaration> tensors = {named(".weight_packed", TensorType::kI32, {rows, columns / 8}), named(".weight_scale", TensorType::kBF16, {rows, columns / group}),
                                                named(".weight_shape", TensorType::kI64, {2})};
      if (layout == HubLayout::kInt4Zero) tensors.push_back(named(".weight_zero_point", TensorType::kI32, {ceil_divided(rows, 8), columns / group}));
      return tensors;
    }
    case HubLayout::kInt8: return {named(".weight", TensorType::kI8, {rows, columns}), named(".weight_scale", TensorType::kBF16, {rows, 1})};
    case HubLayout::kFp8: return {named(".weight", TensorType::kF8E4M3, {rows, columns}), named(".weight_scale", TensorType::kBF16, {rows, 1})};
    case HubLayout::kFp8Squares:
      return {named(".weight", TensorType::kF8E4M3, {rows, columns}), named(".weight_scale", TensorType::kBF16, {ceil_divided(rows, kSquare), ceil_divided(columns, kSquare)})};
    case HubLayout::kNvfp4:
      return {named(".weight_packed", TensorType::kU8, {rows, columns / 2}), named(".weight_scale", TensorType::kF8E4M3, {rows, columns / 16}), named(".weight_global_scale", TensorType::kF32, {1})};
    case HubLayout::kMxfp4: return {named(".weight_packed", TensorType::kU8, {rows, columns / 2}), named(".weight_scale", TensorType::kU8, {rows, columns / 32})};
    case HubLayout::kGptq:
      return {named(".qweight", TensorType::kI32, {columns / 8, rows}), named(".qzeros", TensorType::kI32, {columns / group, rows / 8}), named(".scales", TensorType::kF16, {columns / group, rows}),
              named(".g_idx", TensorType::kI32, {columns})};
    case HubLayout::kAwq:
      return {named(".qweight", TensorType::kI32, {columns, rows / 8}), named(".qzeros", TensorType::kI32, {columns / group, rows / 8}), named(".scales", TensorType::kF16, {columns / group, rows})};
    case HubLayout::kNf4:
      return {named(".weight", TensorType::kU8, {rows * columns / 2, 1}), named(".weight.absmax", TensorType::kF32, {rows * columns / BlockNF4::kElements}),
              named(".weight.quant_map", TensorType::kF32, {16}), named(".weight.quant_state.bitsandbytes__nf4", TensorType::kU8, {static_cast<int64_t>(nf4_state(rows, columns).size())})};
  }
  return {};
}

std::vector<std::vector<std::byte>> hub_bytes(HubLayout layout, int64_t group, const std::byte* blocks, int64_t rows, int64_t columns, float global_scale) {
  switch (layout) {
    case HubLayout::kInt8: return scaled_bytes<BlockI8>(blocks, rows, columns, 1, columns);
    case HubLayout::kFp8: return scaled_bytes<BlockF8E4M3>(blocks, rows, columns, 1, columns);
    case HubLayout::kFp8Squares: return scaled_bytes<BlockF8E4M3>(blocks, rows, columns, kSquare, kSquare);
    case HubLayout::kNvfp4: return nvfp4(blocks, rows, columns, global_scale);
    case HubLayout::kMxfp4: return mxfp4(blocks, rows, columns);
    case HubLayout::kNf4: return nf4(blocks, rows, columns);
    default: break;
  }
  const auto matrix = int4_matrix(hub_block_type(layout, group), blocks, rows, columns);
  if (layout == HubLayout::kGptq) return gptq_tensors(matrix);
  return layout == HubLayout::kAwq ? awq_tensors(matrix) : compressed_int4_tensors(matrix, layout == HubLayout::kInt4Zero);
}

}  // namespace graft
