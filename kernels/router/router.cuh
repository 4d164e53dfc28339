// Launch arguments of a router's choice of experts (formula in router.h). Rows are contiguous; pointers are device memory. A warp has a token.
#pragma once
#include <cstdint>

namespace graft::cuda {

constexpr int kMostRoutedExperts = 1024, kMostChosenExperts = 32, kMostExpertGroups = 32;   // what kernels take

struct RouterForward {
  enum class Score { kSoftmax, kSigmoid, kSquareRootSoftplus, kSoftmaxOfChosen };
  enum class GroupScore { kTwoBest, kBest };
  const float* logits_NE;
  const float* selection_bias_E;   // null: none
  const float* expert_scale_E;     // null: none
  int64_t num_tokens;
  int num_experts, experts_per_token;
  Score score;
  int num_groups, groups_per_token;
  GroupScore group_score;
  bool one_per_group;
  bool renormalise;
  float smallest_sum, scale;
  int64_t* chosen_NK;
  float* weights_NK;
};

// Null, or the driver's words. `stream` is a cudaStream_t.
const char* launch(const RouterForward& arguments, void* stream);

}  // namespace graft::cuda
