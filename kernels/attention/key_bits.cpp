#include "kernels/attention/key_bits.h"

#include <ATen/ATen.h>

namespace graft {
namespace {

at::Tensor powers(const at::Tensor& like) {   // 1, 2, 4, .. 128
  return at::bitwise_left_shift(at::ones({8}, like.options().dtype(at::kInt)), at::arange(8, like.options().dtype(at::kInt))).to(at::kByte);
}

}  // namespace

at::Tensor pack_keys(const at::Tensor& seen) {
  const auto whole_bytes = at::constant_pad_nd(seen, {0, key_bytes(seen.size(-1)) * 8 - seen.size(-1)});
  return (whole_bytes.unflatten(-1, {-1, 8}).to(at::kByte) * powers(seen)).sum(-1, false, at::kByte);
}

at::Tensor unpack_keys(const at::Tensor& bits, int64_t num_keys) {
  return at::bitwise_and(bits.unsqueeze(-1), powers(bits)).ne(0).flatten(-2).narrow(-1, 0, num_keys);
}

}  // namespace graft
