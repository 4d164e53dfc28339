// The order of the steps of delta attention.
#include "kernels/delta_attention/delta_kernels.cuh"

namespace graft::cuda {
namespace {

const char* refusal(const DeltaProblem& problem) {
  if (problem.type == RowType::kFloat16) return "no delta attention kernel for float16";
  if (delta_size(problem.key_size, problem.value_size) == 0) return "no delta attention kernel for heads of this size";
  const int step = problem.type == RowType::kFloat32 ? 4 : 8;
  if (problem.key_size % step != 0 || problem.value_size % step != 0) return "delta attention kernels take heads of whole 16 bytes";
  if (problem.taps < 1 || problem.taps > kMostDeltaTaps) return "no delta attention kernel for a convolution of this length";
  return nullptr;
}

}  // namespace

const char* launch(const DeltaAttentionForward& arguments, void* stream) {
  const auto& problem = arguments.problem;
  if (const char* why = refusal(problem)) return why;
  if (problem.num_chunks == 0) return nullptr;
  launch_rows(problem, stream);
  launch_chunk_states(arguments, stream);
  launch_scan(problem, arguments.states, false, stream);
  launch_outputs(arguments, stream);
  return launch_error();
}

const char* launch(const DeltaAttentionBackward& arguments, void* stream) {
  const auto& problem = arguments.problem;
  if (const char* why = refusal(problem)) return why;
  if (problem.num_chunks == 0) return nullptr;
  launch_rows(problem, stream);
  launch_outputs(arguments, stream);
  launch_scan(problem, arguments.dstates, true, stream);
  launch_gradients(arguments, stream);
  launch_rows_backward(arguments, stream);
  return launch_error();
}

}  // namespace graft::cuda
