// The element type of a kernel's rows, in its launch arguments. No hardware and no Torch: both sides of a launch include it.
#pragma once

namespace graft::cuda {

enum class RowType { kFloat32, kBfloat16, kFloat16 };

}  // namespace graft::cuda
