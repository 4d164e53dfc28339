// Which implementation an operator takes: the fast CPU path for tensors in the CPU's memory, kernels for tensors on a GPU, plain ATen operations where
// there is neither.
#pragma once
#include <atomic>
#include <cstdint>

namespace graft {

enum class OperatorPath { kFast, kReference, kEmulated };

namespace detail {
inline std::atomic<OperatorPath> operator_path{OperatorPath::kFast};
inline std::atomic<int64_t> plain_paths{0};
}  // namespace detail

// Switches for tests, of the whole process. kReference: CPU tensors take plain ATen operations. kEmulated: they go through a GPU's launchers and kernels
// (the device launchers must be those of tests/emulator).
inline void set_operator_path(OperatorPath path) { detail::operator_path = path; }

// How often an operator whose tensors were where kernels run had none for what it was given, since the process began.
inline int64_t plain_paths_taken() { return detail::plain_paths; }

// x: a tensor. (A template, so that this header needs no Torch.)
template <typename Tensor>
bool takes_fast_path(const Tensor& x) {
  return x.is_cpu() && detail::operator_path == OperatorPath::kFast;
}

}  // namespace graft
