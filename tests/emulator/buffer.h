// Memory that a kernel may touch: aligned as cudaMalloc does, registered with the emulator while it lives.
#pragma once
#include <algorithm>
#include <initializer_list>
#include <memory>
#include <new>
#include <vector>

#include "kernels/cuda/elements.cuh"
#include "tests/emulator/memory.h"

namespace graft::emulator {

template <typename T>
class Buffer {
 public:
  explicit Buffer(size_t size, const T& value = {}) : size_(size), data_(static_cast<T*>(::operator new(std::max<size_t>(1, size * sizeof(T)), std::align_val_t(256)))) {
    std::fill_n(data_, size, value);
    register_memory(data_, size * sizeof(T));
  }
  Buffer(std::initializer_list<T> values) : Buffer(values.size()) { std::copy(values.begin(), values.end(), data_); }
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) { std::copy(values.begin(), values.end(), data_); }
  ~Buffer() {
    forget_memory(data_);
    ::operator delete(data_, std::align_val_t(256));
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  T& operator[](size_t index) { return data_[index]; }
  const T& operator[](size_t index) const { return data_[index]; }

 private:
  size_t size_;
  T* data_;
};

}  // namespace graft::emulator
