// A frozen matrix in the form it came in (plain or quantised blocks): one resident copy, decoded to float32 row by row when it is used. On a GPU
// it has one copy more, there: as stored, quantised blocks too, or decoded.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

#include <ATen/core/Tensor.h>

#include "kernels/quantized/tensor_type.h"

namespace graft {

// A weight's copy on a device. kStored: as stored where that is blocks, or plain and no wider than the compute type, else rounded to that, as every use in
// that type would round it. kDecoded: blocks are decoded too, once, where each use would decode them again (a head, for every block of logits).
enum class DeviceForm { kStored, kDecoded };

class FrozenWeight {
 public:
  FrozenWeight() = default;
  // data: rows x columns in `type`, kept alive by `owner`. columns is a whole number of blocks.
  FrozenWeight(TensorType type, int64_t rows, int64_t columns, const std::byte* data, std::shared_ptr<const void> owner);

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  TensorType type() const { return type_; }
  int64_t row_bytes() const { return row_bytes_; }
  int64_t num_bytes() const { return rows_ * row_bytes_; }
  const std::byte* row(int64_t index) const { return data_ + index * row_bytes_; }

  // destination[r * row_stride ..] = row first + r, exactly the stored values. In parallel over rows, on the caller's threads.
  void decode_rows(int64_t first, int64_t count, float* destination, int64_t row_stride) const;
  // `count` elements of a row from `column` on, both in whole blocks. On this thread.
  void decode_part(int64_t row, int64_t column, int64_t count, float* destination) const;
  void decode_part(int64_t row, int64_t column, int64_t count, uint16_t* destination) const;   // rounded to bfloat16

  // Makes a copy on `device` that matrix() and products read from then on. Of blocks it is [rows, row_bytes] bytes.
  void to_device(c10::Device device, at::ScalarType compute, DeviceForm form = DeviceForm::kStored);
  void drop_device_copy() { if (!held_) device_copy_ = at::Tensor(); }
  const at::Tensor& device_copy() const { return device_copy_; }
  // Somebody else brings the device copy from now on (undefined: not there at the moment); to_device and drop_device_copy do nothing until release().
  void hold(at::Tensor device_copy) { device_copy_ = std::move(device_copy), held_ = true; }
  void release() { device_copy_ = at::Tensor(), held_ = false; }
  static int64_t device_bytes(TensorType type, int64_t num_elements, at::ScalarType compute, DeviceForm form = DeviceForm::kStored);   // of that copy
  // The device copy where it lies on `device` as blocks, which kernels read (quantized_product.h); else null.
  const at::Tensor* device_blocks(c10::Device device) const;
  // [rows, columns] in a floating type on a device: the device copy, where it lies there decoded; else all of it decoded anew, from its blocks there by a
  // kernel. Whoever holds it long pays for it twice.
  at::Tensor matrix(at::ScalarType type, c10::Device device) const;

 private:
  at::Tensor copied_to(c10::Device device, at::ScalarType type) const;
  at::Tensor blocks_copied_to(c10::Device device) const;

  TensorType type_ = TensorType::kF32;
  int64_t rows_ = 0, columns_ = 0, row_bytes_ = 0;
  const std::byte* data_ = nullptr;
  std::shared_ptr<const void> owner_;
  at::Tensor device_copy_;
  bool held_ = false;
};

}  // namespace graft
