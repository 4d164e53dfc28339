#include "kernels/attention/attention_scores.cuh"

namespace graft::cuda {
namespace {

template <typename Arguments>
const char* launch_typed(const Arguments& arguments, void* stream) {
  bool known = false;
  for_row_type(arguments.problem.type, [&](auto element) { known = launch_kernels<decltype(element)>(arguments, stream); });
  return known ? launch_error() : "no kernel for heads of this size";
}

}  // namespace

const char* launch(const AttentionForward& arguments, void* stream) { return arguments.num_tiles == 0 ? nullptr : launch_typed(arguments, stream); }
const char* launch(const AttentionBackward& arguments, void* stream) { return arguments.num_query_tiles == 0 ? nullptr : launch_typed(arguments, stream); }

}  // namespace graft::cuda
