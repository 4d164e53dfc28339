#include "trainer/generation/sampling.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "kernels/common/error.h"

namespace graft {
namespace {

struct Candidate {
  int32_t token;
  double value;   // logit, then probability
};

bool before(const Candidate& a, const Candidate& b) { return a.value != b.value ? a.value > b.value : a.token < b.token; }

uint64_t mix(uint64_t bits) {   // SplitMix64's finaliser (Steele et al. 2014)
  bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
  return bits ^ bits >> 31;
}

std::vector<Candidate> penalised(std::span<const float> logits, double penalty, std::span<const int32_t> seen) {
  std::vector<Candidate> candidates(logits.size());
  for (size_t token = 0; token < logits.size(); ++token) candidates[token] = {static_cast<int32_t>(token), logits[token]};
  if (penalty == 1) return candidates;
  for (const auto token : std::set<int32_t>(seen.begin(), seen.end())) {
    auto& value = candidates.at(token).value;
    value = value > 0 ? value / penalty : value * penalty;
  }
  return candidates;
}

// Logits to probabilities.
void softmax(std::vector<Candidate>& candidates, double maximum) {
  double sum = 0;
  for (auto& candidate : candidates) sum += candidate.value = std::exp(candidate.value - maximum);
  for (auto& candidate : candidates) candidate.value /= sum;
}

}  // namespace

void check_sampling(const SamplingOptions& options) {
  const auto need = [](bool good, const char* name, const char* range, double got) {
    if (!good) fail("generation", "expected {} {}, got {} — see graft chat --help", name, range, got);
  };
  need(options.temperature >= 0 && options.temperature <= 100, "temperature", "from 0 to 100", options.temperature);
  need(options.top_k >= 0, "top-k", "of at least 0", static_cast<double>(options.top_k));
  need(options.top_p > 0 && options.top_p <= 1, "top-p", "above 0 and at most 1", options.top_p);
  need(options.min_p >= 0 && options.min_p <= 1, "min-p", "from 0 to 1", options.min_p);
  need(options.repetition_penalty > 0, "repetition penalty", "above 0", options.repetition_penalty);
}

double counter_uniform(uint64_t seed, uint64_t row, uint64_t position) {
  constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;
  const uint64_t bits = mix(mix(mix(seed + kStep) ^ (row + 1) * kStep) ^ (position + 1) * kStep);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

int32_t sample_token(std::span<const float> logits, const SamplingOptions& options, std::span<const int32_t> seen, uint64_t row,
                     uint64_t position) {
  if (options.temperature == 0 && options.repetition_penalty == 1) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  auto candidates = penalised(logits, options.repetition_penalty, seen);
  const auto best = *std::min_element(candidates.begin(), candidates.end(), before);
  if (options.temperature == 0) return best.token;
  for (auto& candidate : candidates) candidate.value /= options.temperature;
  const double maximum = best.value / options.temperature;

  if (options.top_k > 0 && options.top_k < static_cast<int64_t>(candidates.size())) {
    std::nth_element(candidates.begin(), candidates.begin() + options.top_k, candidates.end(), before);
    candidates.resize(options.top_k);
  }
  softmax(candidates, maximum);
  if (options.top_p < 1) {
    std::sort(candidates.begin(), candidates.end(), before);
    double sum = 0;
    size_t kept = 0;
    while (kept < candidates.size() && sum < options.top_p) sum += candidates[kept++].value;
    candidates.resize(kept);
  }
  if (options.min_p > 0) {
    const double floor = options.min_p * std::min_element(candidates.begin(), candidates.end(), before)->value;
    std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.value < floor; });
  }
  // In the order of ids, so that the draw does not depend on which filters sorted.
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
  double total = 0;
  for (const auto& candidate : candidates) total += candidate.value;
  double left = counter_uniform(options.seed, row, position) * total;
  for (const auto& candidate : candidates) {
    left -= candidate.value;
    if (left < 0) return candidate.token;
  }
  return candidates.back().token;
}

}  // namespace graft
