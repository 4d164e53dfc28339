#include "kernels/frozen_weight/frozen_weight.h"

#include <algorithm>
#include <cstring>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include "kernels/common/error.h"
#include "kernels/quantized/dequantize.h"
#include "kernels/quantized_product/quantized_product.h"

namespace graft {
namespace {

constexpr int64_t kSlabElements = int64_t{4} << 20;   // decoded at a time on the way to a device: 16 MiB

// The type that holds a plain stored form unchanged; Undefined for blocks.
at::ScalarType plain_type(TensorType type) {
  switch (type) {
    case TensorType::kF32: return at::kFloat;
    case TensorType::kF16: return at::kHalf;
    case TensorType::kBF16: return at::kBFloat16;
    default: return at::ScalarType::Undefined;
  }
}

// Byte: blocks.
at::ScalarType type_on_device(TensorType type, at::ScalarType compute, DeviceForm form) {
  if (info(type).quantized && form == DeviceForm::kStored) return at::kByte;
  const auto plain = plain_type(type);
  const bool kept = plain != at::ScalarType::Undefined && (plain == compute || c10::elementSize(plain) < c10::elementSize(compute));
  return kept ? plain : compute;
}

}  // namespace

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

void FrozenWeight::decode_part(int64_t row, int64_t column, int64_t count, uint16_t* destination) const {
  const auto& layout = info(type_);
  dequantize_bf16(type_, this->row(row) + column / layout.block_elements * layout.block_bytes, count, destination);
}

at::Tensor FrozenWeight::copied_to(c10::Device device, at::ScalarType type) const {
  const auto options = at::TensorOptions(type).device(device);
  auto copy = at::empty({rows_, columns_}, options);
  const int64_t slab = std::max<int64_t>(1, kSlabElements / std::max<int64_t>(1, columns_));
  for (int64_t first = 0; first < rows_; first += slab) {
    const int64_t count = std::min(slab, rows_ - first);
    auto part = at::empty({count, columns_}, type == plain_type(type_) ? type : at::kFloat);
    if (type == plain_type(type_)) {
      std::memcpy(part.data_ptr(), row(first), count * row_bytes_);
    } else {
      decode_rows(first, count, part.data_ptr<float>(), columns_);
    }
    copy.narrow(0, first, count).copy_(part.to(type));   // rounded here, so that less travels
  }
  return copy;
}

at::Tensor FrozenWeight::blocks_copied_to(c10::Device device) const {
  const auto stored = at::from_blob(const_cast<std::byte*>(data_), {rows_, row_bytes_}, at::TensorOptions(at::kByte));   // only read
  return at::empty(stored.sizes(), stored.options().device(device)).copy_(stored);
}

void FrozenWeight::to_device(c10::Device device, at::ScalarType compute, DeviceForm form) {
  if (held_) return;
  const auto type = type_on_device(type_, compute, form);
  device_copy_ = type == at::kByte ? blocks_copied_to(device) : copied_to(device, type);
}

int64_t FrozenWeight::device_bytes(TensorType type, int64_t num_elements, at::ScalarType compute, DeviceForm form) {
  const auto stored = type_on_device(type, compute, form);
  if (stored == at::kByte) return num_elements / info(type).block_elements * info(type).block_bytes;
  return num_elements * static_cast<int64_t>(c10::elementSize(stored));
}

const at::Tensor* FrozenWeight::device_blocks(c10::Device device) const {
  return device_copy_.defined() && device_copy_.device() == device && device_copy_.scalar_type() == at::kByte ? &device_copy_ : nullptr;
}

at::Tensor FrozenWeight::matrix(at::ScalarType type, c10::Device device) const {
  if (device_blocks(device)) {
    if (auto decoded = dequantized(*this, type, device); decoded.defined()) return decoded;
  } else if (device_copy_.defined() && device_copy_.device() == device) {
    return device_copy_.to(type);
  }
  return copied_to(device, type);
}

}  // namespace graft
