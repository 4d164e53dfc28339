// A warp has one head of one token, in registers: lane l holds the pairs of neighbours l, l + 32, ... Partners of half-split pairs meet in shared memory.
// Bound by memory: a read and a write an element, the tables from cache.
#include "kernels/attention/attention_heads.cuh"
#include "kernels/cuda/reduce.cuh"

namespace graft::cuda {
namespace {

constexpr int kLargestHead = 256, kWarps = 4, kPairs = kLargestHead / 2 / kWarp;

struct HeadMemory {
  SharedArray<float, kWarps * kLargestHead> values;
};

// The head of this warp.
struct Head {
  int64_t token;
  int head;
  bool is_query;
  int position;
};

GRAFT_DEVICE bool find_head(const HeadPreparation& of, Head& mine) {
  const int heads = of.num_query_heads + of.num_kv_heads;
  const int64_t number = block_in_grid() * kWarps + thread_in_block() / kWarp;
  mine.token = number / heads;
  mine.head = static_cast<int>(number % heads);
  mine.is_query = mine.head < of.num_query_heads;
  if (mine.token >= of.num_tokens) return false;
  mine.position = load(of.positions_N + mine.token);
  return true;
}

using Values = float[2 * kPairs];

template <typename Element>
GRAFT_DEVICE void read_head(const HeadRows& rows, const Head& mine, int size, Values& x) {
  const auto* data = static_cast<const Element*>(rows.data) + mine.token * rows.token_stride + mine.head * rows.head_stride;
  GRAFT_UNROLL
  for (int i = 0; i < kPairs; ++i) {
    const int c = 2 * (thread_in_block() % kWarp + i * kWarp);
    x[2 * i] = x[2 * i + 1] = 0;
    if (c >= size) continue;
    const auto pair = load(reinterpret_cast<const Pack<Element, 2>*>(data + c));
    x[2 * i] = to_float(pair.values[0]);
    x[2 * i + 1] = to_float(pair.values[1]);
  }
}

template <typename Element>
GRAFT_DEVICE void write_head(const MutableHeadRows& rows, const Head& mine, int size, const Values& x) {
  auto* data = static_cast<Element*>(rows.data) + mine.token * rows.token_stride + mine.head * rows.head_stride;
  GRAFT_UNROLL
  for (int i = 0; i < kPairs; ++i) {
    const int c = 2 * (thread_in_block() % kWarp + i * kWarp);
    if (c < size) store(reinterpret_cast<Pack<Element, 2>*>(data + c), Pack<Element, 2>{{from_float<Element>(x[2 * i]), from_float<Element>(x[2 * i + 1])}});
  }
}

// Turns the part that the tables cover, or turns it back.
GRAFT_DEVICE void turn(const HeadPreparation& of, const Head& mine, Values& x, bool back) {
  if (!of.cosine_PE) return;
  auto& memory = GRAFT_SHARED(HeadMemory);
  const int pairs = of.rotary_pairs, base = thread_in_block() / kWarp * kLargestHead;
  const float* cosine = of.cosine_PE + int64_t(mine.position) * pairs;
  const float* sine = of.sine_PE + int64_t(mine.position) * pairs;
  if (of.neighbouring_pairs) {
    GRAFT_UNROLL
    for (int i = 0; i < kPairs; ++i) {
      const int pair = thread_in_block() % kWarp + i * kWarp;
      if (pair >= pairs) continue;
      const float c = load(cosine + pair), s = back ? -load(sine + pair) : load(sine + pair), first = x[2 * i], second = x[2 * i + 1];
      x[2 * i] = first * c - second * s;
      x[2 * i + 1] = second * c + first * s;
    }
    return;
  }
  warp_barrier();   // what was read of an earlier turn
  GRAFT_UNROLL
  for (int i = 0; i < 2 * kPairs; ++i) memory.values.write(base + 2 * (thread_in_block() % kWarp + i / 2 * kWarp) + i % 2, x[i]);
  warp_barrier();
  GRAFT_UNROLL
  for (int i = 0; i < 2 * kPairs; ++i) {
    const int c = 2 * (thread_in_block() % kWarp + i / 2 * kWarp) + i % 2;
    if (c >= 2 * pairs) continue;
    const bool first = c < pairs;
    const int pair = first ? c : c - pairs;
    const float other = memory.values.read(base + (first ? c + pairs : pair)), s = first != back ? -load(sine + pair) : load(sine + pair);
    x[i] = x[i] * load(cosine + pair) + other * s;
  }
}

GRAFT_DEVICE const float* norm_of(const HeadPreparation& of, const Head& mine) { return mine.is_query ? of.query_norm_D : of.key_norm_D; }
GRAFT_DEVICE float scale_of(const HeadPreparation& of, const Head& mine) { return mine.is_query && of.query_scale_P ? load(of.query_scale_P + mine.position) : 1.0F; }

GRAFT_DEVICE float inverse_rms(const HeadPreparation& of, const Values& x) {
  float squares = 0;
  GRAFT_UNROLL
  for (int i = 0; i < 2 * kPairs; ++i) squares += x[i] * x[i];   // zero behind the head's size
  return inverse_square_root(warp_sum(squares) / static_cast<float>(of.head_size) + of.epsilon);
}

GRAFT_DEVICE float weight_at(const float* weight, int i, int size) {
  const int c = 2 * (thread_in_block() % kWarp + i / 2 * kWarp) + i % 2;
  return c < size ? load(weight + c) : 0.0F;
}

GRAFT_DEVICE void normalise(const HeadPreparation& of, const float* weight, Values& x) {
  if (!weight) return;
  const float inverse = inverse_rms(of, x);
  GRAFT_UNROLL
  for (int i = 0; i < 2 * kPairs; ++i) x[i] *= inverse * weight_at(weight, i, of.head_size);
}

// gradient <- r * (h - x * r^2 * mean(h * x)), h = weight * gradient (rms_norm.cu).
GRAFT_DEVICE void normalise_backward(const HeadPreparation& of, const float* weight, const Values& x, Values& gradient) {
  if (!weight) return;
  const float inverse = inverse_rms(of, x);
  float dot = 0;
  GRAFT_UNROLL
  for (int i = 0; i < 2 * kPairs; ++i) {
    gradient[i] *= weight_at(weight, i, of.head_size);
    dot += gradient[i] * x[i];
  }
  const float along_x = warp_sum(dot) * inverse * inverse / static_cast<float>(of.head_size);
  GRAFT_UNROLL
  for (int i = 0; i < 2 * kPairs; ++i) gradient[i] = inverse * (gradient[i] - x[i] * along_x);
}

template <typename Element>
GRAFT_KERNEL(kWarps * kWarp) prepare_heads(const HeadPreparationForward arguments) {
  const auto& of = arguments.of;
  Head mine;
  if (!find_head(of, mine)) return;
  Values x;
  read_head<Element>(of.heads, mine, of.head_size, x);
  if (of.norm_after_rotation) turn(of, mine, x, false);
  normalise(of, norm_of(of, mine), x);
  if (!of.norm_after_rotation) turn(of, mine, x, false);
  const float scale = scale_of(of, mine);
  GRAFT_UNROLL
  for (int i = 0; i < 2 * kPairs; ++i) x[i] *= scale;
  write_head<Element>(arguments.prepared, mine, of.head_size, x);
}

template <typename Element>
GRAFT_KERNEL(kWarps * kWarp) prepare_heads_backward(const HeadPreparationBackward arguments) {
  const auto& of = arguments.of;
  Head mine;
  if (!find_head(of, mine)) return;
  Values x, gradient;
  read_head<Element>(of.heads, mine, of.head_size, x);
  read_head<Element>(arguments.gradient, mine, of.head_size, gradient);
  const float scale = scale_of(of, mine);
  GRAFT_UNROLL
  for (int i = 0; i < 2 * kPairs; ++i) gradient[i] *= scale;
  if (of.norm_after_rotation) {
    turn(of, mine, x, false);
    normalise_backward(of, norm_of(of, mine), x, gradient);
    turn(of, mine, gradient, true);
  } else {
    turn(of, mine, gradient, true);
    normalise_backward(of, norm_of(of, mine), x, gradient);
  }
  write_head<Element>(arguments.heads_gradient, mine, of.head_size, gradient);
}

template <typename Function>
const char* launch_any(const HeadPreparation& of, const Function& function) {
  const int64_t heads = int64_t(of.num_tokens) * (of.num_query_heads + of.num_kv_heads), blocks = (heads + kWarps - 1) / kWarps;
  if (heads == 0) return nullptr;
  if (of.head_size > kLargestHead || of.head_size % 2 != 0) return "no kernel for heads of this size";
  for_row_type(of.type, [&](auto element) { function(element, blocks); });
  return launch_error();
}

}  // namespace

const char* launch(const HeadPreparationForward& arguments, void* stream) {
  return launch_any(arguments.of, [&](auto element, int64_t blocks) { LAUNCH(prepare_heads<decltype(element)>, blocks, kWarps * kWarp, sizeof(HeadMemory), stream, arguments); });
}

const char* launch(const HeadPreparationBackward& arguments, void* stream) {
  return launch_any(arguments.of, [&](auto element, int64_t blocks) { LAUNCH(prepare_heads_backward<decltype(element)>, blocks, kWarps * kWarp, sizeof(HeadMemory), stream, arguments); });
}

}  // namespace graft::cuda
