// The auxiliary loss of mixtures of experts that punishes uneven routing, and counts of what routers chose.
//
//   loss = E * sum over e of f_e P_e      f_e: how often expert e was chosen, P_e: the mean of its softmax probability, both over all tokens and layers
//
// f has no gradient, so that every token and layer gets d loss / d p_e = E f_e / rows. Switch Transformer, equations 4 to 6 (arXiv 2101.03961), as transformers'
// load_balancing_loss_func: chosen by the probabilities alone, counted over all k choices.
#pragma once
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/models/blocks.h"
#include "trainer/models/decoder_spec.h"

namespace graft {

class LoadBalancing {
 public:
  explicit LoadBalancing(const RouterSpec& router);
  void add(const Routing& routing);                       // of one layer, in the forward pass
  double loss() const;
  void set_weight(double weight) { weight_ = weight; }    // of the loss, for the gradient
  at::Tensor gradient_E() const;                          // of weight * loss by the probabilities of any token; float32 where the probabilities are
  const std::vector<double>& expert_tokens() const { return expert_tokens_; }   // [layers, experts]: what was really chosen

 private:
  RouterSpec router_;
  double rows_ = 0, weight_ = 0;
  at::Tensor chosen_E_, probability_E_;   // float64, on the CPU
  c10::Device device_ = c10::kCPU;
  std::vector<double> expert_tokens_;
};

}  // namespace graft
