// The path of linear_cross_entropy where kernels run: hidden is contiguous, float32 or bfloat16, and takes_kernels().
#pragma once
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace graft {

CrossEntropyResult linear_cross_entropy_device(const at::Tensor& hidden_MC, const HeadPieces& head, std::span<const int32_t> labels_M,
                                               std::span<const float> weights_M, const CrossEntropyOptions& options);

}  // namespace graft
