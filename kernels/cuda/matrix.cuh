// Matrix instructions of sm_80 and up: ldmatrix and mma.m16n8k16 with bfloat16 or float16 operands and float32 sums (PTX ISA 8.5, sections 9.7.14.5.8
// and 9.7.14.5.15). With lane = 4 g + t, each register a pair of neighbours:
//   a[16, 16]: values[0] = (row g, columns 2t, 2t + 1), [1] = (g + 8, the same), [2] = (g, 2t + 8, 2t + 9), [3] = (g + 8, those)
//   b[16, 8]:  values[0] = (rows 2t, 2t + 1, column g), [1] = (rows 2t + 8, 2t + 9, column g)
//   sums[16, 8]: values[0, 1] = (row g, columns 2t, 2t + 1), [2, 3] = (row g + 8, those)
#pragma once
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/shared.cuh"

namespace graft::cuda {

template <int kCount>
struct Registers {
  uint32_t values[kCount];
};

struct Sums {
  float values[4];
};

// kCount matrices of 8 x 8: lane 8 m + r gives the index of row r of matrix m, eight elements at a multiple of eight. Register m of lane 4 g + t is row g,
// columns 2t and 2t + 1 of matrix m; transposed: rows 2t and 2t + 1, column g.
template <bool kTransposed, int kCount, typename Element, int kElements>
GRAFT_DEVICE void load_matrices(Registers<kCount>& fragment, const SharedArray<Element, kElements>& from, int index) {
  static_assert(sizeof(Element) == 2 && (kCount == 1 || kCount == 2 || kCount == 4), "ldmatrix moves 1, 2 or 4 matrices of 8 x 8 elements of 16 bits");
  const auto row = static_cast<uint32_t>(__cvta_generic_to_shared(from.elements + index));
  auto* r = fragment.values;
  if constexpr (kCount == 4 && kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
  } else if constexpr (kCount == 4) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
  } else if constexpr (kCount == 2 && kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(row) : "memory");
  } else if constexpr (kCount == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(row) : "memory");
  } else if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(row) : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(row) : "memory");
  }
}

// sums += a b.
template <typename Element>
GRAFT_DEVICE void multiply_add(Sums& sums, const Registers<4>& a, const Registers<2>& b) {
  auto* d = sums.values;
  if constexpr (std::is_same<Element, Bfloat16>::value) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a.values[0]), "r"(a.values[1]), "r"(a.values[2]), "r"(a.values[3]), "r"(b.values[0]), "r"(b.values[1]));
  } else {
    static_assert(std::is_same<Element, Float16>::value, "bfloat16 or float16");
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a.values[0]), "r"(a.values[1]), "r"(a.values[2]), "r"(a.values[3]), "r"(b.values[0]), "r"(b.values[1]));
  }
}

}  // namespace graft::cuda
