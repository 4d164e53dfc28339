// A thread has one pack of results. Bound by memory: forward moves three elements for one of y, backward five. Backward computes the activation again, so
// that nothing but x is kept.
#include "kernels/gated_activation/gated_activation.cuh"

#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/rows.cuh"

namespace graft::cuda {
namespace {

using Rows = GatedActivationRows;
using Kind = Rows::Kind;

constexpr int kThreads = 256;

// Comparisons, not minima: NaN passes.
GRAFT_DEVICE float at_most(float value, float limit) { return value > limit ? limit : value; }
GRAFT_DEVICE float at_least(float value, float limit) { return value < limit ? limit : value; }

// gelu in its tanh form is x * sigmoid(c (x + d x^3)), c = 2 sqrt(2/pi).
constexpr float kGeluScale = 1.5957691216F, kGeluCubic = 0.044715F;
GRAFT_DEVICE float gelu_sigmoid(float x) { return sigmoid(kGeluScale * (x + kGeluCubic * x * x * x)); }

// y, and its slopes in gate and up (kGeluTanh has no up).
struct Slopes {
  float gate, up;
};
template <Kind kKind>
GRAFT_DEVICE float activated(const Rows& of, float gate, float up) {
  if constexpr (kKind == Kind::kSwiGlu) return gate * sigmoid(gate) * up;
  if constexpr (kKind == Kind::kGeluTanhGated) return gate * gelu_sigmoid(gate) * up;
  if constexpr (kKind == Kind::kGeluTanh) return gate * gelu_sigmoid(gate);
  const float g = at_most(gate, of.limit), u = at_least(at_most(up, of.limit), -of.limit);
  return g * sigmoid(of.alpha * g) * (u + 1.0F);
}
template <Kind kKind>
GRAFT_DEVICE Slopes slopes(const Rows& of, float gate, float up) {
  if constexpr (kKind == Kind::kSwiGlu) {
    const float share = sigmoid(gate);
    return {up * share * (1.0F + gate * (1.0F - share)), gate * share};
  }
  if constexpr (kKind == Kind::kGeluTanhGated || kKind == Kind::kGeluTanh) {
    constexpr bool kGated = kKind == Kind::kGeluTanhGated;
    const float share = gelu_sigmoid(gate);
    const float slope = share + gate * share * (1.0F - share) * kGeluScale * (1.0F + 3.0F * kGeluCubic * gate * gate);
    return {kGated ? slope * up : slope, gate * share};
  }
  // Beyond the limits a slope is zero; at them it is the one inside, as torch.clamp's.
  const float g = at_most(gate, of.limit), u = at_least(at_most(up, of.limit), -of.limit), share = sigmoid(of.alpha * g);
  const bool gate_moves = !(gate > of.limit), up_moves = !(up > of.limit) && !(up < -of.limit);
  return {gate_moves ? (u + 1.0F) * share * (1.0F + of.alpha * g * (1.0F - share)) : 0.0F, up_moves ? g * share : 0.0F};
}

// 32 bits suffice nearly always, and divide at a third of the cost.
GRAFT_DEVICE int64_t quotient(int64_t value, int divisor) {
  if (value <= 0x7fffffff) return static_cast<uint32_t>(value) / static_cast<uint32_t>(divisor);
  return value / divisor;
}

// Where the packs of x lie that belong to pack `index` of y.
template <Kind kKind>
struct Place {
  static constexpr bool kGated = kKind != Kind::kGeluTanh;
  int64_t first, second;
  bool interleaved;
  GRAFT_DEVICE Place(const Rows& of, int64_t index, int packs_of_row) : first(index), second(index), interleaved(kGated && of.interleaved) {
    if (!kGated) return;
    first = interleaved ? 2 * index : index + quotient(index, packs_of_row) * packs_of_row;
    second = interleaved ? first + 1 : first + packs_of_row;
  }
};

// Gates and ups of one pack of y, taken from two packs of x and put back; interleaved, they are neighbours there.
template <int kPack>
struct Halves {
  float gate[kPack], up[kPack];
};
template <typename Packed, int kPack>
GRAFT_DEVICE void take_apart(const Packed& first, const Packed& second, bool interleaved, Halves<kPack>& halves) {
  float x[2 * kPack];
  GRAFT_UNROLL
  for (int k = 0; k < kPack; ++k) {
    x[k] = to_float(first.values[k]);
    x[kPack + k] = to_float(second.values[k]);
  }
  GRAFT_UNROLL
  for (int k = 0; k < kPack; ++k) {
    halves.gate[k] = interleaved ? x[2 * k] : x[k];
    halves.up[k] = interleaved ? x[2 * k + 1] : x[kPack + k];
  }
}
template <typename Element, typename Packed, int kPack>
GRAFT_DEVICE void put_together(const Halves<kPack>& halves, bool interleaved, Packed& first, Packed& second) {
  const auto neighbour = [&](int at) { return at % 2 == 0 ? halves.gate[at / 2] : halves.up[at / 2]; };
  GRAFT_UNROLL
  for (int k = 0; k < kPack; ++k) {
    first.values[k] = from_float<Element>(interleaved ? neighbour(k) : halves.gate[k]);
    second.values[k] = from_float<Element>(interleaved ? neighbour(kPack + k) : halves.up[k]);
  }
}

// This thread's pack of y, or none.
GRAFT_DEVICE bool find_pack(const Rows& of, int packs_of_row, int64_t& index) {
  index = block_in_grid() * kThreads + thread_in_block();
  return index < of.num_rows * packs_of_row;
}

template <typename Element, int kPack, Kind kKind>
GRAFT_KERNEL(kThreads) gated_activation_forward(const GatedActivationForward arguments) {
  using Packed = Pack<Element, kPack>;
  const auto& of = arguments.of;
  int64_t index;
  if (!find_pack(of, of.width / kPack, index)) return;
  const auto* x = static_cast<const Packed*>(of.x);
  const Place<kKind> place(of, index, of.width / kPack);
  Packed first = load(x + place.first), second = first, y;
  if constexpr (Place<kKind>::kGated) second = load(x + place.second);
  Halves<kPack> halves;
  take_apart(first, second, place.interleaved, halves);
  GRAFT_UNROLL
  for (int k = 0; k < kPack; ++k) y.values[k] = from_float<Element>(activated<kKind>(of, halves.gate[k], halves.up[k]));
  store(static_cast<Packed*>(arguments.y_NI) + index, y);
}

template <typename Element, int kPack, Kind kKind>
GRAFT_KERNEL(kThreads) gated_activation_backward(const GatedActivationBackward arguments) {
  using Packed = Pack<Element, kPack>;
  const auto& of = arguments.of;
  int64_t index;
  if (!find_pack(of, of.width / kPack, index)) return;
  const auto* x = static_cast<const Packed*>(of.x);
  auto* dx = static_cast<Packed*>(arguments.dx);
  const Place<kKind> place(of, index, of.width / kPack);
  const Packed gradient = load(static_cast<const Packed*>(arguments.gradient_NI) + index);
  Packed first = load(x + place.first), second = first;
  if constexpr (Place<kKind>::kGated) second = load(x + place.second);
  Halves<kPack> halves;
  take_apart(first, second, place.interleaved, halves);
  GRAFT_UNROLL
  for (int k = 0; k < kPack; ++k) {
    const float g = to_float(gradient.values[k]);
    const Slopes slope = slopes<kKind>(of, halves.gate[k], halves.up[k]);
    halves.gate[k] = g * slope.gate;
    halves.up[k] = g * slope.up;
  }
  put_together<Element>(halves, place.interleaved, first, second);
  store(dx + place.first, first);
  if constexpr (Place<kKind>::kGated) store(dx + place.second, second);
}

template <typename Element, int kPack, Kind kKind>
void launch_one(const GatedActivationForward& arguments, int64_t blocks, void* stream) {
  LAUNCH((gated_activation_forward<Element, kPack, kKind>), blocks, kThreads, 0, stream, arguments);
}
template <typename Element, int kPack, Kind kKind>
void launch_one(const GatedActivationBackward& arguments, int64_t blocks, void* stream) {
  LAUNCH((gated_activation_backward<Element, kPack, kKind>), blocks, kThreads, 0, stream, arguments);
}

template <typename Element, int kPack, typename Arguments>
void launch_kind(const Arguments& arguments, void* stream) {
  const int64_t blocks = (arguments.of.num_rows * (arguments.of.width / kPack) + kThreads - 1) / kThreads;
  switch (arguments.of.kind) {
    case Kind::kSwiGlu: return launch_one<Element, kPack, Kind::kSwiGlu>(arguments, blocks, stream);
    case Kind::kGeluTanhGated: return launch_one<Element, kPack, Kind::kGeluTanhGated>(arguments, blocks, stream);
    case Kind::kClampedSwiGlu: return launch_one<Element, kPack, Kind::kClampedSwiGlu>(arguments, blocks, stream);
    case Kind::kGeluTanh: return launch_one<Element, kPack, Kind::kGeluTanh>(arguments, blocks, stream);
  }
}

// Halves begin at multiples of their width, so wide packs need a width of whole packs.
template <typename Arguments>
const char* launch_any(const Arguments& arguments, void* stream) {
  if (arguments.of.num_rows == 0 || arguments.of.width == 0) return nullptr;
  for_row_type(arguments.of.type, [&](auto element) {
    using Element = decltype(element);
    constexpr int kWide = kWidestPack<Element>;
    if (arguments.of.width % kWide == 0) return launch_kind<Element, kWide>(arguments, stream);
    launch_kind<Element, 1>(arguments, stream);
  });
  return launch_error();
}

}  // namespace

const char* launch(const GatedActivationForward& arguments, void* stream) { return launch_any(arguments, stream); }
const char* launch(const GatedActivationBackward& arguments, void* stream) { return launch_any(arguments, stream); }

}  // namespace graft::cuda
