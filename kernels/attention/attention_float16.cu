// The kernels of attention for float16: a file each, because they take long to compile.
#include "kernels/attention/attention_backward_kernel.cuh"
#include "kernels/attention/attention_forward_kernel.cuh"

namespace graft::cuda {

template bool launch_kernels<Float16>(const AttentionForward& arguments, void* stream);
template bool launch_kernels<Float16>(const AttentionBackward& arguments, void* stream);

}  // namespace graft::cuda
