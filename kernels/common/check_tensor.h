// What an operator expects of a tensor, checked before anything runs.
#pragma once
#include <initializer_list>

#include <ATen/core/Tensor.h>
#include <c10/util/StringUtil.h>

#include "kernels/common/error.h"

namespace graft {

// UserError that names operator and argument, what was expected and what came, unless the tensor is undefined. sizes: -1 stands for any.
inline void check_tensor(const char* operator_name, const char* argument, const at::Tensor& tensor, at::Device device, std::initializer_list<at::ScalarType> types, at::IntArrayRef sizes) {
  if (!tensor.defined()) return;
  bool fits = tensor.dim() == static_cast<int64_t>(sizes.size()), known = false;
  for (int64_t d = 0; fits && d < tensor.dim(); ++d) fits = sizes[static_cast<size_t>(d)] == -1 || sizes[static_cast<size_t>(d)] == tensor.size(d);
  std::string names;
  for (const auto type : types) {
    known = known || tensor.scalar_type() == type;
    names += (names.empty() ? "" : " or ") + std::string(c10::toString(type));
  }
  if (fits && known && tensor.device() == device) return;
  fail("kernels", "{}: expected {} of {} {} on {}, got {} {} on {}", operator_name, argument, names, c10::str(sizes), device.str(), c10::toString(tensor.scalar_type()), c10::str(tensor.sizes()),
       tensor.device().str());
}

}  // namespace graft
