// Rounding with error feedback: what rounding some columns does to the outputs is made up for in the columns that are still to be rounded.
//
// The error of y = W x over some tokens is |(W - W^) X|^2 = sum over rows of e H e^T, H = sum of x x^T. Columns are rounded from the first to the last; after a block
// with the error E the others become W - E U_BB^-1 U_BR, with U the upper Cholesky factor of H^-1, which is the best answer to that error. GPTQ (arXiv 2210.17323),
// with the scales of a block searched for (checkpoints/codecs) when its turn comes; INT4's columns are rounded one by one within their group, blocks of other forms as
// a whole.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kernels/quantized/tensor_type.h"

namespace graft {

struct FeedbackFactor {
  int64_t columns = 0;
  std::vector<float> upper_CC;   // U
  std::vector<float> importance_of(int64_t first, int64_t count) const;   // of each column of a block: what its error costs once the later ones have answered
};

// products: H, [columns, columns]. A hundredth of its mean diagonal is added to the diagonal, as in GPTQ; columns that nothing went through count as little.
FeedbackFactor feedback_factor(std::span<const double> products, int64_t columns);

// Whether blocks of a type can be rounded one after the other: not forms of 8 bits, whose errors are small, nor one scale for a row.
bool takes_feedback(TensorType type);

// The blocks of `rows` x `columns` values of one block's width. importance: of its columns.
using BlockQuantizer = std::function<void(const float* values, int64_t rows, int64_t columns, std::span<const float> importance, std::byte* blocks)>;

// values: rows x factor.columns float32, which become what was rounded in the end; destination: as quantize() has it. Rows do not see each other: callers split them
// among threads.
void quantize_with_feedback(TensorType type, const FeedbackFactor& factor, float* values, int64_t rows, const BlockQuantizer& quantizer, std::byte* destination);

}  // namespace graft
