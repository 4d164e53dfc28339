// Which keys a query sees, as bits: key i of a row is bit i % 8 of its byte i / 8. A document of T tokens takes T^2 / 8 bytes.
#pragma once
#include <cstdint>

#include <ATen/core/Tensor.h>

namespace graft {

constexpr int64_t key_bytes(int64_t num_keys) { return (num_keys + 7) / 8; }
inline bool has_key(const uint8_t* row, int64_t key) { return (row[key / 8] >> (key % 8) & 1) != 0; }

// bool [.., keys] to uint8 [.., key_bytes(keys)], and the first `num_keys` back. Any device.
at::Tensor pack_keys(const at::Tensor& seen);
at::Tensor unpack_keys(const at::Tensor& bits, int64_t num_keys);

}  // namespace graft
