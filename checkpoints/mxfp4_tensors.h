// Weights that a Hugging Face directory holds as two tensors of bytes, NAME_blocks and NAME_scales (gpt-oss), as one tensor of MXFP4 blocks.
#pragma once
#include <memory>
#include <string_view>

#include "checkpoints/tensor_source.h"

namespace graft {

inline constexpr std::string_view kMxfp4Ending = "_mxfp4";

// The source's tensors; NAME_blocks [E, R, C/32, 16] and NAME_scales [E, R, C/32] become NAME_mxfp4 [E, R, C], laid out as ggml's blocks in memory of their
// own. Rows of gate_up_proj, which stand in turn in the file, become all gates of an expert and then all ups. UserError where a pair does not fit.
std::unique_ptr<TensorSource> join_mxfp4(std::shared_ptr<const TensorSource> source);

}  // namespace graft
