#include "kernels/frozen_weight/frozen_weight.h"

#include <ATen/Parallel.h>

#include "kernels/common/error.h"
#include "kernels/quantized/dequantize.h"

namespace graft {

FrozenWeight::FrozenWeight(TensorType type, int64_t rows, int64_t columns, const std::byte* data, std::shared_ptr<const void> owner)
    : type_(type), rows_(rows), columns_(columns), data_(data), owner_(std::move(owner)) {
  const auto& layout = info(type);
  if (columns % layout.block_elements != 0) {
    fail("kernels", "expected columns in whole blocks of {} for {}, got {}", layout.block_elements, layout.name, columns);
  }
  row_bytes_ = columns / layout.block_elements * layout.block_bytes;
}

void FrozenWeight::decode_rows(int64_t first, int64_t count, float* destination, int64_t row_stride) const {
  const int64_t grain = 1 + 65536 / (columns_ + 1);
  at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    if (row_stride == columns_) {   // one call for the whole range: the decoder's loop stays hot
      dequantize(type_, row(first + begin), (end - begin) * columns_, destination + begin * columns_);
      return;
    }
    for (int64_t r = begin; r < end; ++r) dequantize(type_, row(first + r), columns_, destination + r * row_stride);
  });
}

void FrozenWeight::decode_part(int64_t row, int64_t column, int64_t count, float* destination) const {
  const auto& layout = info(type_);
  dequantize(type_, this->row(row) + column / layout.block_elements * layout.block_bytes, count, destination);
}

}  // namespace graft
