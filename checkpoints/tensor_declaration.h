// A tensor that a writer is told about before its bytes: a file's header comes first, its data is streamed.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/quantized/tensor_type.h"

namespace graft {

struct TensorDeclaration {
  std::string name;
  TensorType type = TensorType::kF32;
  std::vector<int64_t> shape;  // outermost first, as torch: [out, in]
};

}  // namespace graft
