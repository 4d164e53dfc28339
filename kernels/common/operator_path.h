// Which implementation an operator takes: the fast CPU path for tensors in the CPU's memory, plain ATen operations for all others (GPUs).
#pragma once
#include <atomic>

namespace graft {

enum class OperatorPath { kFast, kReference };

namespace detail {
inline std::atomic<OperatorPath> operator_path{OperatorPath::kFast};
}

// kReference sends CPU tensors through the very code that a GPU runs: a switch for tests, of the whole process.
inline void set_operator_path(OperatorPath path) { detail::operator_path = path; }

// x: a tensor. (A template, so that this header needs no Torch.)
template <typename Tensor>
bool takes_fast_path(const Tensor& x) {
  return x.is_cpu() && detail::operator_path == OperatorPath::kFast;
}

}  // namespace graft
