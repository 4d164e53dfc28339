#include "kernels/scratch/scratch.h"

#include <cstdint>

#include <gtest/gtest.h>

namespace graft {
namespace {

TEST(Scratch, GivesAlignedMemoryThatDoesNotOverlap) {
  Scratch scratch;
  float* a = scratch.floats(3);
  float* b = scratch.floats(0);
  float* c = scratch.floats(10'000'000);   // more than a block
  for (const float* pointer : {a, b, c}) EXPECT_EQ(reinterpret_cast<uintptr_t>(pointer) % 64, 0u);
  EXPECT_GE(b, a + 3);
  c[9'999'999] = 1;
  EXPECT_EQ(scratch.tensor({2, 5}).sizes(), (std::vector<int64_t>{2, 5}));
}

TEST(Scratch, AnInnerScopeGivesItsMemoryBackAndLeavesTheOuterOnes) {
  Scratch outer;
  float* kept = outer.floats(16);
  kept[0] = 42;
  float* first = nullptr;
  {
    Scratch inner;
    first = inner.floats(16);
    first[0] = 1;
    inner.floats(5'000'000)[0] = 2;
  }
  {
    Scratch inner;
    EXPECT_EQ(inner.floats(16), first);
  }
  EXPECT_EQ(kept[0], 42);
}

TEST(Scratch, BlocksBecomeOneWhenNobodyHoldsAny) {
  const auto both = [] {
    Scratch scratch;
    const float* a = scratch.floats(2'000'000);
    return scratch.floats(2'000'000) - a;
  };
  both();
  EXPECT_EQ(both(), 2'000'000);
}

}  // namespace
}  // namespace graft
