// A warp has a token, a lane every 32nd expert. What it chooses by are whole numbers in the order of the scores, NaN above all as torch.topk has it, with the
// expert behind them: so there is one best, the first of equals, and no expert comes twice whatever the scores. Bound by the latency of its warp reductions.
#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/exponential_sum.cuh"
#include "kernels/router/router.cuh"

namespace graft::cuda {
namespace {

using Score = RouterForward::Score;

constexpr int kTokens = 4, kThreads = kTokens * kWarp;   // of a block

template <int kSlots>
struct RouterMemory {
  SharedArray<float, kTokens * kSlots * kWarp> choices;   // by which is chosen
};

// Ordered as the values are, above 0.
GRAFT_DEVICE uint32_t order_of(float value) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return 0xffffffffU;
  return bits & 0x80000000U ? ~bits : bits | 0x80000000U;
}
// The greater the better; 0: no candidate.
GRAFT_DEVICE uint64_t ranked(uint32_t order, int index) { return order == 0 ? 0 : uint64_t(order) << 32 | (0xffffffffU - static_cast<uint32_t>(index)); }
GRAFT_DEVICE int index_of(uint64_t rank) { return static_cast<int>(0xffffffffU - static_cast<uint32_t>(rank)); }
GRAFT_DEVICE uint64_t better(uint64_t a, uint64_t b) { return a > b ? a : b; }
GRAFT_DEVICE uint64_t best_of_warp(uint64_t rank) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) rank = better(rank, shuffle_xor(rank, mask));
  return rank;
}

// A score from its logit, and of kSoftmax the largest logit and the sum of all exponentials.
GRAFT_DEVICE float score_of(Score score, float logit, float largest, float sum) {
  switch (score) {
    case Score::kSoftmax: return exponential(logit - largest) / sum;
    case Score::kSigmoid: return sigmoid(logit);
    case Score::kSquareRootSoftplus: return square_root(softplus(logit));
    default: return logit;
  }
}

// This lane's group as one of its own kind: its best expert, and how good it is.
struct Group {
  uint64_t rank = 0;   // of the group
  int best = 0;        // expert
};
template <int kSlots>
GRAFT_DEVICE Group group_of_lane(const RouterForward& of, const RouterMemory<kSlots>& memory, int first_choice, int lane) {
  Group group;
  if (lane >= of.num_groups) return group;
  const int size = of.num_experts / of.num_groups;
  float best = -infinity(), second = best;
  uint64_t best_rank = 0;
  for (int i = 0; i < size; ++i) {
    const int expert = lane * size + i;
    const float choice = memory.choices.read(first_choice + expert);
    const uint64_t rank = ranked(order_of(choice), expert);
    const bool leads = rank > best_rank;
    second = leads ? best : larger(second, choice);
    best = leads ? choice : best;
    best_rank = leads ? rank : best_rank;
  }
  const bool of_two = of.group_score == RouterForward::GroupScore::kTwoBest && size > 1;
  group.rank = ranked(order_of(of_two ? best + second : best), lane);
  group.best = index_of(best_rank);
  return group;
}

// Bit g: group g is one of the best.
GRAFT_DEVICE uint32_t best_groups(const RouterForward& of, uint64_t rank, int lane) {
  uint32_t groups = 0;
  for (int i = 0; i < of.groups_per_token; ++i) {
    const int best = index_of(best_of_warp(rank));
    groups |= 1U << best;
    if (lane == best) rank = 0;
  }
  return groups;
}

// Lane k: the k-th best expert of those whose order is not 0.
template <int kSlots>
GRAFT_DEVICE int best_experts(const RouterForward& of, uint32_t (&orders)[kSlots], int lane) {
  int mine = 0;
  for (int k = 0; k < of.experts_per_token; ++k) {
    uint64_t rank = 0;
    GRAFT_UNROLL
    for (int slot = 0; slot < kSlots; ++slot) rank = better(rank, ranked(orders[slot], slot * kWarp + lane));
    const int best = index_of(best_of_warp(rank));
    if (lane == k) mine = best;
    GRAFT_UNROLL
    for (int slot = 0; slot < kSlots; ++slot) orders[slot] = slot * kWarp + lane == best ? 0 : orders[slot];
  }
  return mine;
}

template <int kSlots>
GRAFT_KERNEL(kThreads) route_tokens(const RouterForward arguments) {
  auto& memory = GRAFT_SHARED(RouterMemory<kSlots>);
  const auto& of = arguments;
  const int lane = thread_in_block() % kWarp, warp = thread_in_block() / kWarp, first_choice = warp * kSlots * kWarp;
  const int64_t token = block_in_grid() * kTokens + warp;
  if (token >= of.num_tokens) return;   // whole warps; no barrier of the block follows
  const float* logits = of.logits_NE + token * of.num_experts;

  float values[kSlots], largest = -infinity();
  GRAFT_UNROLL
  for (int slot = 0; slot < kSlots; ++slot) {
    const int expert = slot * kWarp + lane;
    values[slot] = expert < of.num_experts ? load(logits + expert) : -infinity();
    largest = larger(values[slot], largest);
  }
  float sum = 1;
  if (of.score == Score::kSoftmax) {
    largest = warp_maximum(largest);
    sum = 0;
    GRAFT_UNROLL
    for (int slot = 0; slot < kSlots; ++slot) sum += exponential(values[slot] - largest);
    sum = warp_sum(sum);
  }
  uint32_t orders[kSlots];
  GRAFT_UNROLL
  for (int slot = 0; slot < kSlots; ++slot) {
    const int expert = slot * kWarp + lane;
    orders[slot] = 0;
    if (expert >= of.num_experts) continue;
    float choice = score_of(of.score, values[slot], largest, sum);
    if (of.selection_bias_E) choice += load(of.selection_bias_E + expert);
    orders[slot] = order_of(choice);
    if (of.num_groups > 1) memory.choices.write(first_choice + expert, choice);
  }

  int mine;
  if (of.num_groups > 1) {
    warp_barrier();
    const Group group = group_of_lane(of, memory, first_choice, lane);
    if (of.one_per_group) {
      mine = group.best;
    } else {
      const uint32_t groups = best_groups(of, group.rank, lane);
      const int size = of.num_experts / of.num_groups;
      GRAFT_UNROLL
      for (int slot = 0; slot < kSlots; ++slot) {
        const int expert = slot * kWarp + lane;
        if (expert < of.num_experts && (groups >> expert / size & 1U) == 0) orders[slot] = 0;
      }
      mine = best_experts(of, orders, lane);
    }
  } else {
    mine = best_experts(of, orders, lane);
  }

  const bool chooses = lane < of.experts_per_token;
  const float logit = chooses ? load(logits + mine) : -infinity();
  float weight = chooses ? score_of(of.score, logit, largest, sum) : 0.0F;
  if (of.score == Score::kSoftmaxOfChosen) {
    weight = exponential(logit - warp_maximum(logit));
    weight /= warp_sum(weight);
  }
  if (of.renormalise) weight /= larger(warp_sum(weight), of.smallest_sum);
  if (!chooses) return;
  weight *= of.scale;
  if (of.expert_scale_E) weight *= load(of.expert_scale_E + mine);
  store(of.chosen_NK + token * of.experts_per_token + lane, int64_t(mine));
  store(of.weights_NK + token * of.experts_per_token + lane, weight);
}

template <int kSlots>
void launch_slots(const RouterForward& arguments, void* stream) {
  LAUNCH(route_tokens<kSlots>, (arguments.num_tokens + kTokens - 1) / kTokens, kThreads, sizeof(RouterMemory<kSlots>), stream, arguments);
}

}  // namespace

const char* launch(const RouterForward& arguments, void* stream) {
  if (arguments.num_experts > kMostRoutedExperts) return "no router kernel for so many experts";
  if (arguments.num_tokens == 0) return nullptr;
  if (arguments.num_experts <= 4 * kWarp) {
    launch_slots<4>(arguments, stream);
  } else if (arguments.num_experts <= 16 * kWarp) {
    launch_slots<16>(arguments, stream);
  } else {
    launch_slots<32>(arguments, stream);
  }
  return launch_error();
}

}  // namespace graft::cuda
