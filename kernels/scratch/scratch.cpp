#include "kernels/scratch/scratch.h"

#include <algorithm>
#include <new>
#include <utility>
#include <vector>

#include <sys/mman.h>

#include <ATen/ops/from_blob.h>

namespace graft {
namespace {

constexpr size_t kAlignment = 64, kSmallestBlock = size_t{4} << 20;

struct Block {
  std::byte* data = nullptr;
  size_t size = 0;
};

struct Stack {
  std::vector<Block> blocks;
  size_t block = 0, used = 0;   // the next free byte
  size_t wanted = 0;            // of the next block: what the last scopes needed in all

  ~Stack() { clear(); }

  void clear() {
    for (const auto& one : blocks) munmap(one.data, one.size);
    blocks.clear();
    block = used = 0;
  }

  std::byte* take(size_t bytes) {
    for (; block < blocks.size(); ++block, used = 0) {
      if (used + bytes <= blocks[block].size) return std::exchange(used, used + bytes) + blocks[block].data;
    }
    const size_t size = std::max({bytes, wanted, kSmallestBlock});
    void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) throw std::bad_alloc();
    madvise(data, size, MADV_HUGEPAGE);
    blocks.push_back({static_cast<std::byte*>(data), size});
    used = bytes;
    return blocks.back().data;
  }

  // Several blocks become one when nobody holds any.
  void merge() {
    if (blocks.size() < 2) return;
    wanted = 0;
    for (const auto& one : blocks) wanted += one.size;
    clear();
  }
};

Stack& stack() {
  thread_local Stack own;
  return own;
}

}  // namespace

Scratch::Scratch() : block_(stack().block), used_(stack().used) {}

Scratch::~Scratch() {
  auto& own = stack();
  own.block = block_;
  own.used = used_;
  if (block_ == 0 && used_ == 0) own.merge();
}

float* Scratch::floats(int64_t count) {
  const size_t bytes = (static_cast<size_t>(std::max<int64_t>(count, 1)) * sizeof(float) + kAlignment - 1) / kAlignment * kAlignment;
  return reinterpret_cast<float*>(stack().take(bytes));
}

at::Tensor Scratch::tensor(at::IntArrayRef sizes, at::ScalarType type) {
  int64_t bytes = static_cast<int64_t>(c10::elementSize(type));
  for (const auto size : sizes) bytes *= size;
  return at::from_blob(elements<std::byte>(bytes), sizes, at::TensorOptions(type));
}

}  // namespace graft
