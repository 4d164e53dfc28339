// The buffer of a loss on the device path: logits of a block of rows in float32, which its kernel turns into their gradient, in hidden's type.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "kernels/linear_head/logit_rows.cuh"

namespace graft {

class LogitBlock {
 public:
  LogitBlock(const at::Tensor& hidden_MC, int64_t vocab, int64_t most_rows)
      : vocab_(vocab), bf16_(hidden_MC.scalar_type() == at::kBFloat16), buffer_(at::empty({most_rows, stride(vocab)}, hidden_MC.options().dtype(at::kFloat))) {}

  static int64_t row_bytes(int64_t vocab) { return stride(vocab) * 4; }
  int64_t most_rows() const { return buffer_.size(0); }

  at::Tensor logits(int64_t count) const { return buffer_.narrow(0, 0, count).narrow(1, 0, vocab_); }
  // What kernels left in their place.
  at::Tensor gradient(int64_t count) const { return (bf16_ ? buffer_.view(at::kBFloat16) : buffer_).narrow(0, 0, count).narrow(1, 0, vocab_); }
  cuda::LogitRows rows(double softcap) const {
    return {buffer_.data_ptr(), buffer_.size(1), static_cast<int>(vocab_), static_cast<float>(softcap), bf16_ ? cuda::LogitType::kFloat32ToBfloat16 : cuda::LogitType::kFloat32};
  }

 private:
  static int64_t stride(int64_t vocab) { return (vocab + 7) / 8 * 8; }

  int64_t vocab_;
  bool bf16_;
  at::Tensor buffer_;
};

}  // namespace graft
