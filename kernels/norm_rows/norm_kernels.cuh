// Device code of RMS norm and layer norm, which differ in whether the mean is taken off. A warp or a block has a row in registers. Bound by memory:
// forward reads and writes an element once (with a residual, two reads and two writes), backward reads two and writes one.
#pragma once
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/norm_rows/norm_rows.cuh"

namespace graft::cuda {

// What only layer norm has.
struct Centring {
  const float* bias_C;
  float* mean_N;
};
struct CentringBackward {
  const float* mean_N;
};

template <int kThreads>
struct NormMemory {
  BlockSumMemory<kThreads> first, second;
};

template <typename Shape>
GRAFT_DEVICE int64_t row_of_thread() {
  return block_in_grid() * Shape::kRows + thread_in_block() / Shape::kThreads;
}

template <typename Shape, bool kCentred>
GRAFT_DEVICE void norm_forward(const NormForward& of, const Centring& centring) {
  using Packed = typename Shape::Packed;
  using Element = typename Shape::Element;
  constexpr int kThreads = Shape::kThreads, kPack = Shape::kPack;
  auto& memory = GRAFT_SHARED(NormMemory<kThreads>);
  const int64_t row = row_of_thread<Shape>();
  if (row >= of.num_rows) return;   // a whole warp, whose sums need no other
  const int num_packs = of.width / kPack;
  const int64_t first_pack = row * num_packs;
  const float share = fast_quotient(1.0F, static_cast<float>(of.width));   // of an element in a mean

  KeptRow<Shape> x;
  x.read(static_cast<const Packed*>(of.x_NC) + first_pack, num_packs);
  if (of.residual_NC) {
    KeptRow<Shape> residual;
    residual.read(static_cast<const Packed*>(of.residual_NC) + first_pack, num_packs);
    auto* sum = static_cast<Packed*>(of.sum_NC) + first_pack;
    for_each_pack<Shape>(num_packs, [&](int slot, int pack) {
      const Packed a = x.at(slot, pack), b = residual.at(slot, pack);
      Packed both;
      GRAFT_UNROLL
      for (int k = 0; k < kPack; ++k) both.values[k] = from_float<Element>(to_float(a.values[k]) + to_float(b.values[k]));
      store(sum + pack, both);
      x.kept[slot] = both;
    });
    x.memory = sum;
  }

  float mean = 0;
  if constexpr (kCentred) {
    for_each_pack<Shape>(num_packs, [&](int slot, int pack) {
      const Packed values = x.at(slot, pack);
      GRAFT_UNROLL
      for (int k = 0; k < kPack; ++k) mean += to_float(values.values[k]);
    });
    mean = block_sum<kThreads>(mean, memory.first) * share;
  }
  float squares = 0;
  for_each_pack<Shape>(num_packs, [&](int slot, int pack) {
    const Packed values = x.at(slot, pack);
    GRAFT_UNROLL
    for (int k = 0; k < kPack; ++k) {
      const float value = to_float(values.values[k]) - mean;
      squares += value * value;
    }
  });
  const float inverse = inverse_square_root(block_sum<kThreads>(squares, memory.second) * share + of.epsilon);
  if (thread_in_block() % kThreads == 0) {
    store(of.inverse_N + row, inverse);
    if constexpr (kCentred) store(centring.mean_N + row, mean);
  }

  auto* y = static_cast<Packed*>(of.y_NC) + first_pack;
  for_each_pack<Shape>(num_packs, [&](int slot, int pack) {
    const Packed values = x.at(slot, pack);
    float weight[kPack], bias[kPack] = {};
    load_floats<kPack>(of.weight_C, pack, weight);
    if constexpr (kCentred) load_floats<kPack>(centring.bias_C, pack, bias);
    Packed result;
    GRAFT_UNROLL
    for (int k = 0; k < kPack; ++k) {
      float normed = (to_float(values.values[k]) - mean) * inverse;
      if (of.rounds_before_weight) normed = to_float(from_float<Element>(normed));
      result.values[k] = from_float<Element>(normed * weight[k] + bias[k]);
    }
    store(y + pack, result);
  });
}

// With c = x - mean and h = weight * gradient:  dx = inverse * (h - c * inverse^2 * mean(h * c)), layer norm's less inverse * mean(h).
template <typename Shape, bool kCentred>
GRAFT_DEVICE void norm_backward(const NormBackward& of, const CentringBackward& centring) {
  using Packed = typename Shape::Packed;
  using Element = typename Shape::Element;
  constexpr int kThreads = Shape::kThreads, kPack = Shape::kPack;
  auto& memory = GRAFT_SHARED(NormMemory<kThreads>);
  const int64_t row = row_of_thread<Shape>();
  if (row >= of.num_rows) return;
  const int num_packs = of.width / kPack;
  const int64_t first_pack = row * num_packs;
  const float share = fast_quotient(1.0F, static_cast<float>(of.width));   // of an element in a mean

  KeptRow<Shape> x, gradient;
  x.read(static_cast<const Packed*>(of.x_NC) + first_pack, num_packs);
  gradient.read(static_cast<const Packed*>(of.gradient_NC) + first_pack, num_packs);
  const float inverse = load(of.inverse_N + row);
  float mean = 0;
  if constexpr (kCentred) mean = load(centring.mean_N + row);

  float along_x = 0, along_one = 0;
  for_each_pack<Shape>(num_packs, [&](int slot, int pack) {
    const Packed values = x.at(slot, pack), g = gradient.at(slot, pack);
    float weight[kPack];
    load_floats<kPack>(of.weight_C, pack, weight);
    GRAFT_UNROLL
    for (int k = 0; k < kPack; ++k) {
      const float h = to_float(g.values[k]) * weight[k];
      along_x += h * (to_float(values.values[k]) - mean);
      if constexpr (kCentred) along_one += h;
    }
  });
  along_x = block_sum<kThreads>(along_x, memory.first) * inverse * inverse * share;
  if constexpr (kCentred) along_one = block_sum<kThreads>(along_one, memory.second) * share;

  const auto* sum_gradient = static_cast<const Packed*>(of.sum_gradient_NC);
  auto* dx = static_cast<Packed*>(of.dx_NC) + first_pack;
  for_each_pack<Shape>(num_packs, [&](int slot, int pack) {
    const Packed values = x.at(slot, pack), g = gradient.at(slot, pack);
    float weight[kPack];
    load_floats<kPack>(of.weight_C, pack, weight);
    Packed result{};
    if (sum_gradient) result = load(sum_gradient + first_pack + pack);
    GRAFT_UNROLL
    for (int k = 0; k < kPack; ++k) {
      const float h = to_float(g.values[k]) * weight[k], through_norm = inverse * (h - along_one - (to_float(values.values[k]) - mean) * along_x);
      result.values[k] = from_float<Element>(sum_gradient ? to_float(result.values[k]) + through_norm : through_norm);
    }
    store(dx + pack, result);
  });
}

// Host: f(RowShape of these rows, number of blocks).
template <typename Norm, typename Function>
const char* for_norm_shape(const Norm& of, const Function& function) {
  if (of.num_rows == 0) return nullptr;
  if (of.width <= 0) return "no kernel for rows without elements";
  for_row_type(of.type, [&](auto element) {
    using Element = decltype(element);
    constexpr int kWide = kWidestPack<Element>;
    const auto with = [&](auto shape) { function(shape, (of.num_rows + shape.kRows - 1) / shape.kRows); };
    const auto shape = norm_shape(of.width, kWide);
    if (!shape.wide_packs) return with(RowShape<Element, 128, 1, 0>());
    if (shape.threads == 32) return with(RowShape<Element, 32, kWide, kNormPacks>());
    if (shape.threads == 128) return with(RowShape<Element, 128, kWide, kNormPacks>());
    if (shape.threads == 256) return with(RowShape<Element, 256, kWide, kNormPacks>());
    if (shape.keeps) return with(RowShape<Element, 512, kWide, kNormPacks>());
    with(RowShape<Element, 512, kWide, 0>());
  });
  return launch_error();
}

}  // namespace graft::cuda
