// From a teacher's hidden states to the entries that a store keeps.
#pragma once
#include <cstdint>

#include <ATen/core/Tensor.h>

#include "data/teacher_signals/signal_codec.h"
#include "kernels/linear_head/linear_head.h"

namespace graft {

struct EntryOptions {
  SignalForm form;
  double temperature = 1;
  uint64_t seed = 0, row_key = 0;   // of draws: the same row has the same draws, whatever it was computed beside
  int64_t buffer_bytes = default_loss_buffer_bytes(true);
};

// Adds each token's entries to `encoder`, in order. hidden_MC: on the CPU. Returns the sum of the distributions' entropies, in nats. UserError for
// as many likeliest tokens as there are.
double add_entries(SignalEncoder& encoder, const at::Tensor& hidden_MC, const LinearHead& head, const EntryOptions& options);

}  // namespace graft
