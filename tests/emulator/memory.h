// Who may touch which byte when.
#pragma once
#include <cstddef>
#include <cstdint>

namespace graft::emulator {

enum class Access { kRead, kWrite, kAtomic };

// Memory outside of the block, as a kernel's arguments point to it. While any is registered, a kernel touches only what is. Bytes have one owner
// a launch: what one block wrote no other block reads or writes, unless by atomics.
void register_memory(const void* begin, size_t bytes);
void forget_memory(const void* begin);

void check_global(const void* address, size_t bytes, size_t alignment, Access access);
// Of the block's shared memory.
void check_shared(const void* address, size_t bytes, size_t alignment, Access access);
void check_index(int64_t index, int64_t count, int64_t size);   // [index, index + count) of an array of `size`

// cp.async: the bytes arrive when this thread waits for their group; until then the destination is NaN and nobody's to touch. Null: zeros.
void copy_async(void* to, const void* from, size_t bytes);
void copy_commit();
void copy_wait(int most_pending_groups);

// Of block.cpp: a new launch, a new block, and the end of one (copies that nobody waited for).
void begin_launch();
void begin_block(unsigned char* shared, size_t bytes, int threads);
void end_block();
void order_block();          // a barrier of the block: what came before is seen by all
void order_warp(int warp);
void flush_bank_conflicts(int warp);

}  // namespace graft::emulator
