// kernels/cuda/shared.cuh on the CPU: every access is checked (tests/emulator/memory.h).
#pragma once
#include <cstring>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/elements.cuh"

namespace graft::cuda {

template <typename T, int kElements>
struct SharedArray {
  alignas(16) T elements[kElements];

  T read(int index) const { return *at<T>(index, 1, emulator::Access::kRead); }
  void write(int index, const T& value) { *const_cast<T*>(at<T>(index, 1, emulator::Access::kWrite)) = value; }
  template <int kCount>
  Pack<T, kCount> read_pack(int index) const {
    return *at<Pack<T, kCount>>(index, kCount, emulator::Access::kRead);
  }
  template <int kCount>
  void write_pack(int index, const Pack<T, kCount>& pack) {
    *const_cast<Pack<T, kCount>*>(at<Pack<T, kCount>>(index, kCount, emulator::Access::kWrite)) = pack;
  }
  // For instructions that take an address.
  const T* address(int index, int count) const {
    emulator::check_index(index, count, kElements);
    return elements + index;
  }

 private:
  template <typename Unit>
  const Unit* at(int index, int count, emulator::Access access) const {
    const T* first = address(index, count);
    emulator::check_shared(first, sizeof(Unit), alignof(Unit), access);
    return reinterpret_cast<const Unit*>(first);
  }
};

template <int kCount, typename T, int kElements>
void copy_async(SharedArray<T, kElements>& to, int index, const T* from, bool valid = true) {
  static_assert(kCount * sizeof(T) == 4 || kCount * sizeof(T) == 8 || kCount * sizeof(T) == 16, "cp.async copies 4, 8 or 16 bytes");
  emulator::copy_async(const_cast<T*>(to.address(index, kCount)), valid ? from : nullptr, kCount * sizeof(T));
}
inline void copy_commit() { emulator::copy_commit(); }
template <int kMostPending>
void copy_wait() {
  emulator::copy_wait(kMostPending);
}

}  // namespace graft::cuda
