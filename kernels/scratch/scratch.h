// Float32 scratch of operators: a stack of buffers per thread that is kept between calls, beside the heap. Activations that live until the
// backward pass would otherwise settle in the holes that scratch leaves, and the heap would grow by a third.
#pragma once
#include <cstdint>

#include <ATen/core/Tensor.h>

namespace graft {

// What a Scratch gave is free again when it goes out of scope; scopes of a thread nest.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;

  float* floats(int64_t count);                    // 64-byte aligned, not initialised. std::bad_alloc when the machine refuses
  template <typename Element>                      // the same of another type of at most 4 bytes
  Element* elements(int64_t count) { return reinterpret_cast<Element*>(floats((count * static_cast<int64_t>(sizeof(Element)) + 3) / 4)); }
  at::Tensor tensor(at::IntArrayRef sizes, at::ScalarType type = at::kFloat);   // the same as a tensor, which must not outlive the scope

 private:
  size_t block_ = 0, used_ = 0;                    // where the thread's stack stood
};

}  // namespace graft
