#include "trainer/distillation/signal_entries.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include <ATen/Parallel.h>

#include "kernels/common/error.h"
#include "trainer/generation/sampling.h"

namespace graft {

namespace {

struct Distribution {
  std::vector<double> probabilities_V;
  double entropy = 0;
};

Distribution distribution_of(const float* logits, int64_t vocab, double temperature) {
  Distribution result;
  result.probabilities_V.resize(static_cast<size_t>(vocab));
  const double largest = *std::max_element(logits, logits + vocab);
  double sum = 0, mean = 0;   // mean: sum of exp * exponent
  for (int64_t v = 0; v < vocab; ++v) {
    const double exponent = (logits[v] - largest) / temperature, value = std::exp(exponent);
    result.probabilities_V[static_cast<size_t>(v)] = value;
    sum += value;
    mean += value * exponent;
  }
  for (auto& value : result.probabilities_V) value /= sum;
  result.entropy = std::log(sum) - mean / sum;
  return result;
}

struct TokenEntries {
  std::vector<int32_t> ids;
  std::vector<float> log_probabilities;   // top
  double tail_mass = 0, entropy = 0;
};

void take_top(const Distribution& distribution, int64_t count, TokenEntries& entries) {
  const auto& probabilities = distribution.probabilities_V;
  entries.ids.resize(probabilities.size());
  std::iota(entries.ids.begin(), entries.ids.end(), 0);
  const auto likelier = [&](int32_t a, int32_t b) {
    const double p = probabilities[static_cast<size_t>(a)], q = probabilities[static_cast<size_t>(b)];
    return p != q ? p > q : a < b;
  };
  std::nth_element(entries.ids.begin(), entries.ids.begin() + count - 1, entries.ids.end(), likelier);
  for (auto id = entries.ids.begin() + count; id != entries.ids.end(); ++id) entries.tail_mass += probabilities[static_cast<size_t>(*id)];
  entries.ids.resize(static_cast<size_t>(count));
  for (const auto id : entries.ids) entries.log_probabilities.push_back(static_cast<float>(std::log(probabilities[static_cast<size_t>(id)])));
}

// By inversion: the draws in ascending order meet the running sum of probabilities once.
void take_draws(const Distribution& distribution, int64_t count, const EntryOptions& options, int64_t token, TokenEntries& entries) {
  std::vector<double> draws;
  for (int64_t i = 0; i < count; ++i) draws.push_back(counter_uniform(options.seed, options.row_key, static_cast<uint64_t>(token * count + i)));
  std::sort(draws.begin(), draws.end());
  const auto& probabilities = distribution.probabilities_V;
  double sum = 0;
  size_t id = 0, last = 0;   // last: that can come up at all
  for (const double draw : draws) {
    for (; id < probabilities.size() && sum + probabilities[id] <= draw; ++id) {
      sum += probabilities[id];
      if (probabilities[id] > 0) last = id;
    }
    entries.ids.push_back(static_cast<int32_t>(id < probabilities.size() ? id : last));   // beyond the sum by its rounding
  }
}

}  // namespace

double add_entries(SignalEncoder& encoder, const at::Tensor& hidden_MC, const LinearHead& head, const EntryOptions& options) {
  const int64_t num_tokens = hidden_MC.size(0), vocab = head.rows();
  const bool top = options.form.kind == SignalForm::Kind::kTop;
  const int64_t count = options.form.num_entries;
  if (top && count >= vocab) fail("teach", "expected teacher.count below the teacher's {} tokens, got {}", vocab, count);
  const int64_t block = rows_of_block(num_tokens, 4 * vocab, options.buffer_bytes);
  double entropy = 0;
  for (int64_t first = 0; first < num_tokens; first += block) {
    const int64_t rows = std::min(block, num_tokens - first);
    const auto logits_BV = head_logits(hidden_MC.narrow(0, first, rows).contiguous(), head);
    std::vector<TokenEntries> entries(static_cast<size_t>(rows));
    at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        auto& token = entries[static_cast<size_t>(row)];
        const auto distribution = distribution_of(logits_BV.const_data_ptr<float>() + row * vocab, vocab, options.temperature);
        token.entropy = distribution.entropy;
        if (top) take_top(distribution, count, token);
        else take_draws(distribution, count, options, first + row, token);
      }
    });
    for (const auto& token : entries) {
      if (top) encoder.add_top(token.ids, token.log_probabilities, token.tail_mass);
      else encoder.add_drawn(token.ids);
      entropy += token.entropy;
    }
  }
  return entropy;
}

}  // namespace graft
