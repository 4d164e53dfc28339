// Forward and backward of one micro-batch with the step's own layer loop: forward keeps each layer's input (or its graph), backward walks the
// layers in reverse and never below the lowest adapter. Adapter gradients are added to the set's flat buffer in float64.
#pragma once
#include <optional>

#include "trainer/adapters/adapter_set.h"
#include "trainer/distillation/hidden_matching.h"
#include "trainer/distillation/objective.h"
#include "trainer/models/decoder.h"
#include "trainer/models/weight_gate.h"

namespace graft {

enum class Recompute { kNone, kLayer };   // keep each layer's graph, or run its forward again in backward

struct MicroBatchOptions {
  bool want_gradient = true;
  double gradient_scale = 1;              // 1 / the step's count of supervised tokens
  std::optional<double> divergence_scale; // 1 / that of tokens on which a teacher is followed; unset: the same
  Recompute recompute = Recompute::kNone;
  WeightGate* weights = nullptr;          // of a base that does not lie whole in this process
  bool share_prefix = true;               // computes the rows' common beginning once (trainer/models/batch.h)
  // Weight of the load-balancing loss beside this micro-batch's share of the mean loss: its supervised tokens times gradient_scale.
  double load_balancing = 0;
  bool want_routing = false;              // fills MicroBatchResult::expert_tokens
  Objective objective;
  const HiddenMatching* hidden_matching = nullptr;   // of the student's states with the teacher's
  double hidden_matching_scale = 1;       // the loss's weight / the step's count of tokens on which a teacher is followed
  const TeacherSignals* teacher = nullptr;   // of the batch's taught_tokens(), where the objective has a share of it
  std::optional<int64_t> loss_buffer_bytes;   // unset: default_loss_buffer_bytes
};

struct MicroBatchResult {
  double weighted_loss = 0;               // what gradient_scale times gives this micro-batch's part of the step's loss (trainer/distillation/objective.h)
  double weighted_cross_entropy = 0;      // of weight * negative log-likelihood: the same without a teacher
  double weighted_divergence = 0;         // of the teacher
  double weighted_hidden_state_loss = 0;
  int64_t num_supervised = 0;
  int64_t num_correct = 0;                // top-1
  std::vector<float> losses_M;            // negative log-likelihood per supervised token, in order
  double load_balancing_loss = 0;         // as transformers' load_balancing_loss_func over all layers with experts; 0 without
  std::vector<double> expert_tokens;      // [layers with experts, experts]: how many of the tokens computed here chose an expert
};

// adapters may be null when no gradient is wanted.
MicroBatchResult run_micro_batch(const Decoder& decoder, AdapterSet* adapters, const Batch& batch, const MicroBatchOptions& options);

}  // namespace graft
