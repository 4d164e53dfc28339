// Shared memory of a block: arrays that are members of its GRAFT_SHARED struct, and copies into them that run beside the program (cp.async).
#pragma once
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/elements.cuh"

namespace graft::cuda {

// Indices count elements. A pack lies at a multiple of its own size.
template <typename T, int kElements>
struct SharedArray {
  alignas(16) T elements[kElements];

  GRAFT_DEVICE T read(int index) const { return elements[index]; }
  GRAFT_DEVICE void write(int index, const T& value) { elements[index] = value; }
  template <int kCount>
  GRAFT_DEVICE Pack<T, kCount> read_pack(int index) const {
    return *reinterpret_cast<const Pack<T, kCount>*>(elements + index);
  }
  template <int kCount>
  GRAFT_DEVICE void write_pack(int index, const Pack<T, kCount>& pack) {
    *reinterpret_cast<Pack<T, kCount>*>(elements + index) = pack;
  }
  // For instructions that take an address, of `count` elements.
  GRAFT_DEVICE const T* address(int index, int) const { return elements + index; }
};

// `kCount` elements, 4, 8 or 16 bytes, from global memory; zeros, without a look at `from`, where not valid. What was copied before a commit is one group.
template <int kCount, typename T, int kElements>
GRAFT_DEVICE void copy_async(SharedArray<T, kElements>& to, int index, const T* from, bool valid = true) {
  constexpr int kBytes = kCount * static_cast<int>(sizeof(T));
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
  const auto destination = static_cast<uint32_t>(__cvta_generic_to_shared(to.elements + index));
  const int bytes = valid ? kBytes : 0;
  if (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination), "l"(from), "r"(bytes) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(destination), "l"(from), "n"(kBytes), "r"(bytes) : "memory");
  }
}
GRAFT_DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most `kMostPending` of this thread's groups are under way. Other threads see what arrived after a barrier.
template <int kMostPending>
GRAFT_DEVICE void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kMostPending) : "memory");
}

}  // namespace graft::cuda
