// The next token from logits: greedy, or drawn after the usual filters, in transformers' order (generation/logits_process.py):
// repetition penalty, temperature, top-k, top-p, min-p.
#pragma once
#include <cstdint>
#include <span>

namespace graft {

struct SamplingOptions {
  double temperature = 0;          // 0: greedy, the highest logit; of equal ones the lowest id
  int64_t top_k = 0;               // keep the k highest; 0: all
  double top_p = 1;                // keep the fewest tokens whose probabilities reach top_p (Holtzman et al. 2019, arXiv 1904.09751)
  double min_p = 0;                // keep tokens of at least min_p times the highest probability (Nguyen et al. 2024, arXiv 2407.01082)
  double repetition_penalty = 1;   // of tokens seen: positive logits are divided by it, negative multiplied (Keskar et al. 2019, arXiv 1909.05858)
  uint64_t seed = 0;
};

// UserError when a number is out of its range.
void check_sampling(const SamplingOptions& options);

// Uniform in [0, 1): a pure function of its arguments, so that batching changes nothing.
double counter_uniform(uint64_t seed, uint64_t row, uint64_t position);

// seen: tokens of the prompt and the answer so far (read with a repetition penalty only). row, position: counters of the random number.
int32_t sample_token(std::span<const float> logits_V, const SamplingOptions& options, std::span<const int32_t> seen, uint64_t row, uint64_t position);

}  // namespace graft
