// The steps of delta attention, a .cu file each; delta_attention.cu puts them in order. And what all of them take from a problem.
#pragma once
#include "kernels/cuda/elements.cuh"
#include "kernels/delta_attention/delta_attention.cuh"

namespace graft::cuda {

// Each starts its kernels for heads that delta_size() allows.
void launch_rows(const DeltaProblem& problem, void* stream);                 // queries, keys, values
void launch_rows_backward(const DeltaAttentionBackward& arguments, void* stream);   // dqkv
void launch_chunk_states(const DeltaAttentionForward& arguments, void* stream);     // what chunks add to states, solved_keys, ended_keys, chunk_decays
void launch_outputs(const DeltaAttentionForward& arguments, void* stream);   // out
void launch_outputs(const DeltaAttentionBackward& arguments, void* stream);  // doutput, dz, and as launch_chunk_states, of states' gradients
void launch_gradients(const DeltaAttentionBackward& arguments, void* stream);       // da, db, dqueries, dkeys, dvalues
// states[c]: what chunk c adds, becomes what it finds; `back`: gradients, from the last chunk to the first.
void launch_scan(const DeltaProblem& problem, float* states, bool back, void* stream);

template <typename Element, int kSize>
struct DeltaSizes {
  using Type = Element;
  static constexpr int kValue = kSize;
};

// Host: f(DeltaSizes) for the type and sizes of a problem.
template <typename Function>
void for_delta_sizes(const DeltaProblem& problem, const Function& f) {
  const bool is_float32 = problem.type == RowType::kFloat32;
  if (delta_size(problem.key_size, problem.value_size) == 64) {
    is_float32 ? f(DeltaSizes<float, 64>()) : f(DeltaSizes<Bfloat16, 64>());
  } else {
    is_float32 ? f(DeltaSizes<float, 128>()) : f(DeltaSizes<Bfloat16, 128>());
  }
}

// The key head that a value head reads, and the value heads that read a key head: i of their number.
GRAFT_DEVICE int key_head_of(const DeltaProblem& problem, int head) {
  return problem.tiled_value_heads ? head % problem.num_key_heads : head / (problem.num_value_heads / problem.num_key_heads);
}
GRAFT_DEVICE int value_head_of(const DeltaProblem& problem, int key_head, int i) {
  return problem.tiled_value_heads ? i * problem.num_key_heads + key_head : key_head * (problem.num_value_heads / problem.num_key_heads) + i;
}

// One head's padded row of a token, of `heads` heads; T: const or not.
template <int kSize, typename T>
GRAFT_DEVICE T* padded_row(T* rows, int heads, int head, int64_t token) {
  return rows + (token * heads + head) * kSize;
}

}  // namespace graft::cuda
