// The emulator's own tests: kernels with one planted fault each, which must be found, beside the same kernels without it, which must pass.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/shared.cuh"
#include "tests/emulator/buffer.h"

namespace graft::cuda {
namespace {

using emulator::Buffer;
using emulator::EmulatorError;
using testing::AllOf;
using testing::HasSubstr;

template <typename Function>
std::string error_of(const Function& function) {
  try {
    function();
  } catch (const EmulatorError& error) {
    return error.what();
  }
  return "no error";
}

constexpr int kThreads = 96;
struct Exchange {
  SharedArray<float, kThreads> values;
};

// y[i] = x[the thread across the block].
GRAFT_KERNEL(kThreads) reverse(const float* x, float* y, bool with_barrier) {
  auto& memory = GRAFT_SHARED(Exchange);
  const int i = thread_in_block();
  memory.values.write(i, load(x + i));
  if (with_barrier) block_barrier();
  store(y + i, memory.values.read(kThreads - 1 - i));
}

TEST(Emulator, RunsAKernel) {
  Buffer<float> x(kThreads), y(kThreads);
  for (size_t i = 0; i < kThreads; ++i) x[i] = static_cast<float>(i);
  for (uint64_t seed = 0; seed < 20; ++seed) {
    emulator::settings().seed = seed;
    LAUNCH(reverse, 1, kThreads, sizeof(Exchange), nullptr, x.data(), y.data(), true);
    for (size_t i = 0; i < kThreads; ++i) EXPECT_EQ(y[i], static_cast<float>(kThreads - 1 - i));
  }
}

TEST(Emulator, FindsAMissingBarrier) {
  Buffer<float> x(kThreads, 1), y(kThreads);
  for (uint64_t seed = 0; seed < 20; ++seed) {   // in whatever order the threads run
    emulator::settings().seed = seed;
    EXPECT_THAT(error_of([&] { LAUNCH(reverse, 1, kThreads, sizeof(Exchange), nullptr, x.data(), y.data(), false); }),
                AllOf(HasSubstr("kernel reverse, block 0, thread "), HasSubstr("race: ")));
  }
}

GRAFT_KERNEL(kThreads) one_place(float* y, bool same) { store(y + (same ? 0 : thread_in_block()), 1.0F); }

TEST(Emulator, FindsARaceInGlobalMemory) {
  Buffer<float> y(kThreads);
  LAUNCH(one_place, 1, kThreads, 0, nullptr, y.data(), false);
  EXPECT_THAT(error_of([&] { LAUNCH(one_place, 1, kThreads, 0, nullptr, y.data(), true); }), AllOf(HasSubstr("race: write of global memory at byte 0"), HasSubstr("with no barrier between")));
  EXPECT_THAT(error_of([&] { LAUNCH(one_place, 2, kThreads, 0, nullptr, y.data(), false); }), HasSubstr("which another block wrote"));
}

GRAFT_KERNEL(kThreads) count(int32_t* counter) { atomic_add(counter, 1); }

TEST(Emulator, LetsAtomicsMeet) {
  Buffer<int32_t> counter(1);
  LAUNCH(count, 3, kThreads, 0, nullptr, counter.data());
  EXPECT_EQ(counter[0], 3 * kThreads);
}

GRAFT_KERNEL(kThreads) shift(const float* x, float* y, int by) { store(y + thread_in_block(), load(x + thread_in_block() + by)); }

TEST(Emulator, FindsAccessesOutOfBounds) {
  Buffer<float> x(kThreads), y(kThreads);
  LAUNCH(shift, 1, kThreads, 0, nullptr, x.data(), y.data(), 0);
  EXPECT_THAT(error_of([&] { LAUNCH(shift, 1, kThreads, 0, nullptr, x.data(), y.data(), 1); }),
              AllOf(HasSubstr("kernel shift, block 0, thread 95: out of bounds: read of 4 bytes of global memory, byte 384 of a buffer of 384")));
}

GRAFT_KERNEL(kThreads) shared_shift(float* y, int by) {
  auto& memory = GRAFT_SHARED(Exchange);
  memory.values.write(thread_in_block() + by, 1.0F);
  store(y + thread_in_block(), 1.0F);
}

TEST(Emulator, FindsSharedAccessesOutOfBounds) {
  Buffer<float> y(kThreads);
  LAUNCH(shared_shift, 1, kThreads, sizeof(Exchange), nullptr, y.data(), 0);
  EXPECT_THAT(error_of([&] { LAUNCH(shared_shift, 1, kThreads, sizeof(Exchange), nullptr, y.data(), 1); }),
              HasSubstr("thread 95: out of bounds: elements 96 to 96 of a shared array of 96"));
  EXPECT_THAT(error_of([&] { LAUNCH(shared_shift, 1, kThreads, sizeof(Exchange) - 16, nullptr, y.data(), 0); }), HasSubstr("takes 384 bytes of shared memory, was launched with 368"));
}

GRAFT_KERNEL(kThreads) packed(const float* x, float* y, int by) {
  if (thread_in_block() < 8) store(y + thread_in_block(), load(reinterpret_cast<const Pack<float, 4>*>(x + by) + thread_in_block()).values[0]);
}

TEST(Emulator, FindsMisalignment) {
  Buffer<float> x(40), y(8);
  LAUNCH(packed, 1, kThreads, 0, nullptr, x.data(), y.data(), 4);
  EXPECT_THAT(error_of([&] { LAUNCH(packed, 1, kThreads, 0, nullptr, x.data(), y.data(), 2); }), HasSubstr("misaligned: global memory is touched 16 bytes at a time"));
}

GRAFT_KERNEL(kThreads) divergent(int kind) {
  const int thread = thread_in_block();
  if (kind == 0 && thread >= 32) return;   // leave before the barrier
  if (kind == 1 && thread % 2 == 0) shuffle_xor(1.0F, 1);
  if (kind == 1 && thread % 2 == 1) shuffle(1.0F, 0);
  if (kind == 2) {
    if (thread < 32) {
      block_barrier();
    } else {
      block_barrier();
    }
  }
  if (kind == 3 && thread % 32 < 16) shuffle_xor(1.0F, 1);   // the others wait at the barrier below
  if (kind == 4 && thread == 5) return;                      // a lane that does not come
  if (kind == 4) shuffle_xor(1.0F, 1);
  block_barrier();
}

TEST(Emulator, FindsDivergence) {
  const auto error = [](int kind) { return error_of([&] { LAUNCH(divergent, 1, kThreads, 0, nullptr, kind); }); };
  EXPECT_THAT(error(0), testing::AnyOf(HasSubstr("left the kernel while thread"), HasSubstr("after another thread left the kernel")));
  EXPECT_THAT(error(1), HasSubstr("lanes of one warp part"));
  EXPECT_THAT(error(2), HasSubstr("divergent barrier"));
  EXPECT_THAT(error(3), AllOf(HasSubstr("deadlock"), HasSubstr("waits at shuffle_xor"), HasSubstr("waits at the barrier")));
  EXPECT_THAT(error(4), HasSubstr("left the kernel"));
  EXPECT_EQ(error(9), "no error");
}

GRAFT_KERNEL(kWarp) within_a_warp(float* y, bool with_barrier) {
  auto& memory = GRAFT_SHARED(Exchange);
  const int lane = thread_in_block();
  memory.values.write(lane, static_cast<float>(lane));
  if (with_barrier) warp_barrier();
  store(y + lane, memory.values.read(31 - lane));
}

TEST(Emulator, OrdersAWarpByItsBarrierOnly) {
  Buffer<float> y(kWarp);
  LAUNCH(within_a_warp, 1, kWarp, sizeof(Exchange), nullptr, y.data(), true);
  EXPECT_EQ(y[3], 28);
  EXPECT_THAT(error_of([&] { LAUNCH(within_a_warp, 1, kWarp, sizeof(Exchange), nullptr, y.data(), false); }), HasSubstr("race: "));
}

GRAFT_KERNEL(kWarp) copying(const float* x, float* y, int fault) {
  auto& memory = GRAFT_SHARED(Exchange);
  const int lane = thread_in_block(), other = 31 - lane;
  copy_async<1>(memory.values, lane, x + lane, lane != 3);
  copy_commit();
  copy_async<1>(memory.values, 32 + lane, x + 32 + lane);
  if (fault != 1) copy_commit();
  if (fault != 2) copy_wait<1>();
  if (fault != 3) block_barrier();
  float sum = memory.values.read(other);
  if (fault != 4) copy_wait<0>();
  block_barrier();
  if (fault != 4) sum += memory.values.read(32 + other);
  store(y + lane, sum);
}

TEST(Emulator, FindsMissingWaits) {
  Buffer<float> x(64), y(kWarp);
  for (size_t i = 0; i < 64; ++i) x[i] = static_cast<float>(i);
  const auto error = [&](int fault) { return error_of([&] { LAUNCH(copying, 1, kWarp, sizeof(Exchange), nullptr, x.data(), y.data(), fault); }); };
  EXPECT_EQ(error(0), "no error");
  EXPECT_EQ(y[0], 31 + 63);
  EXPECT_EQ(y[31 - 3], 32 + 3) << "zeros where not valid";
  EXPECT_THAT(error(1), HasSubstr("has not waited for"));
  EXPECT_THAT(error(2), HasSubstr("has not waited for"));
  EXPECT_THAT(error(3), testing::AnyOf(HasSubstr("race: "), HasSubstr("has not waited for")));
  EXPECT_THAT(error(4), HasSubstr("the block ended with copies that thread"));
}

GRAFT_KERNEL(kWarp) unwritten(float* y) { store(y + thread_in_block(), GRAFT_SHARED(Exchange).values.read(thread_in_block())); }

TEST(Emulator, StartsSharedMemoryAsNan) {
  Buffer<float> y(kWarp);
  LAUNCH(unwritten, 1, kWarp, sizeof(Exchange), nullptr, y.data());
  for (size_t i = 0; i < kWarp; ++i) EXPECT_TRUE(std::isnan(y[i]));
}

struct Wide {
  SharedArray<float, 32 * 32> values;
};
GRAFT_KERNEL(kWarp) strided(int stride) { GRAFT_SHARED(Wide).values.write(thread_in_block() * stride, 1.0F); }

TEST(Emulator, CountsBankConflicts) {
  emulator::settings().count_bank_conflicts = true;
  for (const auto& [stride, wavefronts] : {std::pair{1, 1}, {2, 2}, {31, 1}, {32, 32}}) {
    emulator::launch_counts().clear();
    const int by = stride;   // a lambda of clang's takes no structured binding
    LAUNCH(strided, 1, kWarp, sizeof(Wide), nullptr, by);
    EXPECT_EQ(emulator::launch_counts()["strided"].shared_requests, 1);
    EXPECT_EQ(emulator::launch_counts()["strided"].shared_wavefronts, wavefronts) << stride;
  }
  emulator::settings().count_bank_conflicts = false;
}

TEST(Emulator, RefusesLaunchesThatHardwareRefuses) {
  Buffer<float> y(kWarp);
  EXPECT_THAT(error_of([&] { LAUNCH(unwritten, 0, kWarp, sizeof(Exchange), nullptr, y.data()); }), HasSubstr("expected 1 to 2^31 - 1 blocks, got 0"));
  EXPECT_THAT(error_of([&] { LAUNCH(unwritten, 1, 33, sizeof(Exchange), nullptr, y.data()); }), HasSubstr("expected a multiple of 32 threads"));
  EXPECT_THAT(error_of([&] { LAUNCH(unwritten, 1, kWarp, 1 << 20, nullptr, y.data()); }), HasSubstr("bytes of shared memory a block, got 1048576"));
}

// A body that leaves an exception on its stack must not damage the launches after it.
TEST(Emulator, GoesOnAfterAnError) {
  Buffer<float> x(kThreads, 2), y(kThreads);
  for (int i = 0; i < 50; ++i) {
    EXPECT_NE(error_of([&] { LAUNCH(reverse, 4, kThreads, sizeof(Exchange), nullptr, x.data(), y.data(), false); }), "no error");
    LAUNCH(reverse, 1, kThreads, sizeof(Exchange), nullptr, x.data(), y.data(), true);
    EXPECT_EQ(y[7], 2);
  }
}

}  // namespace
}  // namespace graft::cuda
