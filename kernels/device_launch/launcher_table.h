// Every kernel that the program can start, by the type of its launch arguments. libgraft_cuda.so fills the table when it is loaded; in tests the emulator
// does. The arguments are plain structs, so the program needs no CUDA to make them. A new kernel: one line more in DeviceLaunchers.
#pragma once
#include "kernels/adamw/adamw.cuh"
#include "kernels/attention/attention.cuh"
#include "kernels/attention/attention_heads.cuh"
#include "kernels/delta_attention/delta_attention.cuh"
#include "kernels/experts/experts.cuh"
#include "kernels/gated_activation/gated_activation.cuh"
#include "kernels/layer_norm/layer_norm.cuh"
#include "kernels/linear_cross_entropy/cross_entropy_rows.cuh"
#include "kernels/linear_kl/kl_rows.cuh"
#include "kernels/lora_linear/lora_linear.cuh"
#include "kernels/quantized_product/quantized_product.cuh"
#include "kernels/rms_norm/rms_norm.cuh"
#include "kernels/router/expert_lists.cuh"
#include "kernels/router/router.cuh"

namespace graft {

// Starts a kernel on a stream (a cudaStream_t). Null, or the driver's words.
template <typename Arguments>
using Launcher = const char* (*)(const Arguments& arguments, void* stream);

template <typename Arguments>
struct LauncherOf {
  Launcher<Arguments> launcher = nullptr;
};

template <typename... Arguments>
struct LauncherTable : LauncherOf<Arguments>... {
  // In namespace graft::cuda a kernel's launcher is an overload of launch().
  void fill_in() { ((static_cast<LauncherOf<Arguments>&>(*this).launcher = [](const Arguments& arguments, void* stream) { return launch(arguments, stream); }), ...); }

  template <typename One>
  Launcher<One> of() const {
    return static_cast<const LauncherOf<One>&>(*this).launcher;
  }
};

struct DeviceLaunchers
    : LauncherTable<cuda::AdamWUpdate,
                    cuda::AttentionForward, cuda::AttentionBackward, cuda::AttentionCacheAppend,
                    cuda::CrossEntropyRows,
                    cuda::DeltaAttentionForward, cuda::DeltaAttentionBackward,
                    cuda::ExpertCombine, cuda::ExpertDown, cuda::ExpertDownBackward, cuda::ExpertFactorGradient, cuda::ExpertGateUp, cuda::ExpertGateUpBackward,
                    cuda::ExpertLists, cuda::ExpertShrink, cuda::ExpertWeightsBackward,
                    cuda::GatedActivationForward, cuda::GatedActivationBackward,
                    cuda::HeadPreparationForward, cuda::HeadPreparationBackward,
                    cuda::KlRows, cuda::SparseKlRows,
                    cuda::LayerNormForward, cuda::LayerNormBackward,
                    cuda::LoraFactors, cuda::LoraShrink, cuda::LoraExpand, cuda::LoraExpandBackward, cuda::LoraShrinkBackward,
                    cuda::DequantizeMatrix, cuda::QuantizedProduct,
                    cuda::RmsNormForward, cuda::RmsNormBackward,
                    cuda::RouterForward> {
  // The stream of that GPU on which LibTorch's own kernels run.
  void* (*current_stream)(int device) = nullptr;
};

// The process's table, empty until it is filled.
inline DeviceLaunchers& device_launchers() {
  static DeviceLaunchers launchers;
  return launchers;
}

// What libgraft_cuda.so exports under the name graft_fill_launchers.
using FillLaunchers = void (*)(DeviceLaunchers& launchers);

}  // namespace graft
