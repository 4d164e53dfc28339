#include "checkpoints/codecs/quantize.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "checkpoints/codecs/quantize_blocks.h"
#include "checkpoints/codecs/quantize_rows.h"
#include "kernels/common/error.h"
#include "kernels/quantized/block_forms.h"
#include "kernels/quantized/small_floats.h"

namespace graft {
namespace {

// importance: of each column; null: all count alike. Without it, forms that ggml encodes in a way worth having byte for byte are encoded so.
template <typename Block>
void encode_all(const float* source, int64_t rows, int64_t columns, const float* importance, std::byte* destination) {
  constexpr bool kSearches = requires(const float* values, Block& block) { encode(values, values, block); };
  constexpr bool kHasPlain = requires(const float* values, Block& block) { encode(values, block); };
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; column += Block::kElements, destination += sizeof(Block)) {
      const float* values = source + row * columns + column;
      Block block;
      if constexpr (kSearches && kHasPlain) {
        importance == nullptr ? encode(values, block) : encode(values, importance + column, block);
      } else if constexpr (kSearches) {
        encode(values, importance == nullptr ? nullptr : importance + column, block);
      } else {
        encode(values, block);
      }
      std::memcpy(destination, &block, sizeof block);
    }
  }
}

// Forms with one scale for a whole row.
template <typename Block>
void encode_rows(const float* source, int64_t rows, int64_t columns, std::byte* destination) {
  std::vector<Block> blocks(static_cast<size_t>(columns / Block::kElements));
  for (int64_t row = 0; row < rows; ++row) {
    encode_row(source + row * columns, columns, blocks.data());
    std::memcpy(destination + row * static_cast<int64_t>(blocks.size() * sizeof(Block)), blocks.data(), blocks.size() * sizeof(Block));
  }
}

void encode_16_bits(const float* source, int64_t count, std::byte* destination, uint16_t (*convert)(float)) {
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t bits = convert(source[i]);
    std::memcpy(destination + 2 * i, &bits, sizeof bits);
  }
}

// The first weight whose magnitude is `limit` or more, or NaN; -1 when there is none.
int64_t find_too_large(const float* source, int64_t count, float limit) {
  for (int64_t i = 0; i < count; ++i)
    if (!(std::fabs(source[i]) < limit)) return i;
  return -1;
}

void check_importance(std::span<const float> importance, int64_t columns) {
  if (static_cast<int64_t>(importance.size()) != columns) fail("codecs", "expected an importance for each of {} columns, got {} — the matrix was made for another model", columns, importance.size());
  for (size_t i = 0; i < importance.size(); ++i)
    if (!(importance[i] >= 0 && std::isfinite(importance[i])))
      fail("codecs", "expected importances that are finite and not negative, got {} for column {} — the matrix is damaged", importance[i], i);
}

}  // namespace

void quantize(TensorType type, const float* source, int64_t rows, int64_t columns, std::byte* destination, std::span<const float> importance) {
  const TensorTypeInfo& layout = info(type);
  if (rows < 0 || columns < 0 || columns % layout.block_elements != 0)
    fail("codecs", "expected columns in whole {} blocks of {}, got {} columns — choose a fallback form", layout.name,
         layout.block_elements, columns);
  const int64_t count = rows * columns;
  if (!importance.empty()) check_importance(importance, columns);
  const bool has_half_scales = type != TensorType::kF32 && type != TensorType::kBF16 && type != TensorType::kMXFP4;
  const float limit = has_half_scales ? 65520.0f : INFINITY;
  if (const int64_t i = find_too_large(source, count, limit); i >= 0)
    fail("codecs",
         "expected weights that {} can hold, got {} in row {}, column {} — the weights diverged; choose F32 or BF16, or train "
         "with a lower learning rate",
         layout.name, source[i], i / columns, i % columns);
  const float* weights = importance.empty() ? nullptr : importance.data();
  switch (type) {
    case TensorType::kF32:
      std::memcpy(destination, source, static_cast<size_t>(count) * sizeof(float));
      return;
    case TensorType::kF16:
      return encode_16_bits(source, count, destination, float_to_half);
    case TensorType::kBF16:
      return encode_16_bits(source, count, destination, float_to_bf16);
    default:
      break;
  }
  bool written = false;
  for_block_form(type, [&](auto form) {
    using Block = typename decltype(form)::Block;
    if constexpr (requires(Block* blocks) { encode_row(source, columns, blocks); }) {
      encode_rows<Block>(source, rows, columns, destination);
      written = true;
    } else if constexpr (requires(Block& block) { encode(source, block); } || requires(Block& block) { encode(source, weights, block); }) {
      encode_all<Block>(source, rows, columns, weights, destination);
      written = true;
    }
  });
  if (written) return;
  fail("codecs", "expected a form that graft writes (F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 NF4, INT4 in groups, scaled INT8 and FP8), got {} — choose one of these",
       layout.name);
}

}  // namespace graft
