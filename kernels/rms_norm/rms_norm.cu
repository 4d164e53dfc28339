// One block per row; it reads the row twice, the second time from cache. Bound by memory: 2 reads and 1 write an element.
#include "kernels/rms_norm/rms_norm.cuh"

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/reduce.cuh"

namespace graft::cuda {
namespace {

template <typename Element, int kThreads, int kPack>
GRAFT_KERNEL(kThreads) rms_norm_forward(const RmsNormForward arguments) {
  using Packed = Pack<Element, kPack>;
  auto& memory = GRAFT_SHARED(BlockSumMemory<kThreads>);
  const int64_t row = block_in_grid();
  const int num_packs = arguments.width / kPack;
  const auto* x = static_cast<const Packed*>(arguments.x_NC) + row * num_packs;
  const auto* weight = reinterpret_cast<const Pack<float, kPack>*>(arguments.weight_C);
  auto* y = static_cast<Packed*>(arguments.y_NC) + row * num_packs;

  float square_sum = 0;
  for (int i = thread_in_block(); i < num_packs; i += kThreads) {
    const Packed chunk = load(x + i);
    for (int k = 0; k < kPack; ++k) square_sum += to_float(chunk.values[k]) * to_float(chunk.values[k]);
  }
  square_sum = block_sum(square_sum, memory);
  const float inverse_rms = inverse_square_root(square_sum / static_cast<float>(arguments.width) + arguments.epsilon);
  if (thread_in_block() == 0) store(arguments.inverse_rms_N + row, inverse_rms);

  for (int i = thread_in_block(); i < num_packs; i += kThreads) {
    Packed chunk = load(x + i);
    const Pack<float, kPack> scale = load(weight + i);
    for (int k = 0; k < kPack; ++k) {
      chunk.values[k] = from_float<Element>(to_float(chunk.values[k]) * inverse_rms * scale.values[k]);
    }
    store(y + i, chunk);
  }
}

// With r = inverse_rms and h = weight * gradient:  dx = r * (h - x * r^2 * mean(h * x)).
template <typename Element, int kThreads, int kPack>
GRAFT_KERNEL(kThreads) rms_norm_backward(const RmsNormBackward arguments) {
  using Packed = Pack<Element, kPack>;
  auto& memory = GRAFT_SHARED(BlockSumMemory<kThreads>);
  const int64_t row = block_in_grid();
  const int num_packs = arguments.width / kPack;
  const auto* gradient = static_cast<const Packed*>(arguments.gradient_NC) + row * num_packs;
  const auto* x = static_cast<const Packed*>(arguments.x_NC) + row * num_packs;
  const auto* weight = reinterpret_cast<const Pack<float, kPack>*>(arguments.weight_C);
  auto* dx = static_cast<Packed*>(arguments.dx_NC) + row * num_packs;
  const float inverse_rms = load(arguments.inverse_rms_N + row);

  float dot = 0;
  for (int i = thread_in_block(); i < num_packs; i += kThreads) {
    const Packed g = load(gradient + i), chunk = load(x + i);
    const Pack<float, kPack> scale = load(weight + i);
    for (int k = 0; k < kPack; ++k) dot += to_float(g.values[k]) * scale.values[k] * to_float(chunk.values[k]);
  }
  dot = block_sum(dot, memory);
  const float along_x = dot * inverse_rms * inverse_rms / static_cast<float>(arguments.width);

  for (int i = thread_in_block(); i < num_packs; i += kThreads) {
    const Packed g = load(gradient + i);
    const Pack<float, kPack> scale = load(weight + i);
    Packed chunk = load(x + i);
    for (int k = 0; k < kPack; ++k) {
      const float h = to_float(g.values[k]) * scale.values[k];
      chunk.values[k] = from_float<Element>(inverse_rms * (h - to_float(chunk.values[k]) * along_x));
    }
    store(dx + i, chunk);
  }
}

template <typename Element, int kThreads, int kPack>
void launch_on(const RmsNormForward& arguments, void* stream) {
  LAUNCH((rms_norm_forward<Element, kThreads, kPack>), arguments.num_rows, kThreads, sizeof(BlockSumMemory<kThreads>), stream, arguments);
}
template <typename Element, int kThreads, int kPack>
void launch_on(const RmsNormBackward& arguments, void* stream) {
  LAUNCH((rms_norm_backward<Element, kThreads, kPack>), arguments.num_rows, kThreads, sizeof(BlockSumMemory<kThreads>), stream, arguments);
}

template <typename Element, int kPack, typename Arguments>
void launch_with_threads(const Arguments& arguments, void* stream) {
  switch (rms_norm_threads(arguments.width)) {
    case 32: return launch_on<Element, 32, kPack>(arguments, stream);
    case 128: return launch_on<Element, 128, kPack>(arguments, stream);
    default: return launch_on<Element, 512, kPack>(arguments, stream);
  }
}

// A row starts at a multiple of its own length, so four elements an access need a width of whole packs.
template <typename Element, typename Arguments>
void launch_typed(const Arguments& arguments, void* stream) {
  if (arguments.width % 4 == 0) return launch_with_threads<Element, 4>(arguments, stream);
  launch_with_threads<Element, 1>(arguments, stream);
}

template <typename Arguments>
const char* launch_any(const Arguments& arguments, void* stream) {
  if (arguments.num_rows == 0) return nullptr;
  if (arguments.type == RowType::kBfloat16) {
    launch_typed<Bfloat16>(arguments, stream);
  } else {
    launch_typed<float>(arguments, stream);
  }
  return launch_error();
}

}  // namespace

const char* launch(const RmsNormForward& arguments, void* stream) { return launch_any(arguments, stream); }
const char* launch(const RmsNormBackward& arguments, void* stream) { return launch_any(arguments, stream); }

}  // namespace graft::cuda
