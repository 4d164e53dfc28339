// GRAFT_SIMD_CLONES compiles one function for AVX-512, AVX2 and the baseline; the loader picks by CPUID. Files that use it
// are built with -ffp-contract=off (kernels/CMakeLists.txt): AVX-512 brings fused multiply-add, and a contracted a*b+c has
// other bits than the baseline's. GCC only: clang's sanitizers do not survive an ifunc resolver.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define GRAFT_SIMD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define GRAFT_SIMD_CLONES
#endif

// Bodies shared by the clones must be inlined into each of them, or they would run the baseline's code.
#define GRAFT_INLINE_IN_CLONES inline __attribute__((always_inline))
