#include "trainer/models/rope_tables.h"

#include <algorithm>
#include <cmath>

#include <ATen/ops/empty.h>

namespace graft {
namespace {

constexpr float kTwoPi = static_cast<float>(2 * M_PI);

float llama3_frequency(const RopeSpec& spec, float frequency) {
  const auto factor = static_cast<float>(spec.factor), original = static_cast<float>(spec.original_max_positions);
  const auto low = static_cast<float>(spec.low_frequency_factor), high = static_cast<float>(spec.high_frequency_factor);
  const float wavelength = kTwoPi / frequency;
  if (wavelength > original / low) return frequency / factor;
  if (wavelength < original / high) return frequency;
  const float smooth = (original / wavelength - low) / (high - low);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

// How much of each pair's frequency YaRN divides by the factor: 0 where a pair turns more than beta_fast times over the original length, 1 where
// less than beta_slow times (Peng et al. 2023, arXiv 2309.00071).
std::vector<float> yarn_ramp(const RopeSpec& spec) {
  const auto size = static_cast<double>(spec.rotary_size);
  const auto pair_of = [&](double turns) { return size * std::log(spec.original_max_positions / (turns * 2 * M_PI)) / (2 * std::log(spec.theta)); };
  const double first = pair_of(spec.beta_fast), last = pair_of(spec.beta_slow);
  const double low = std::max(spec.truncate ? std::floor(first) : first, 0.0);
  double high = std::min(spec.truncate ? std::ceil(last) : last, size - 1);
  if (low == high) high += 0.001;   // as the reference: no division by zero
  std::vector<float> ramp(spec.rotary_size / 2);
  for (size_t i = 0; i < ramp.size(); ++i) {
    ramp[i] = std::clamp((static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f, 1.0f);
  }
  return ramp;
}

}  // namespace

// In float32 step by step, as transformers does: at position 1000 the rounding of an angle is 6e-5, far above that of anything behind it, and the
// reference decides.
std::vector<float> rope_frequencies(const RopeSpec& spec, bool long_rows) {
  using Scaling = RopeSpec::Scaling;
  std::vector<float> frequencies(spec.rotary_size / 2);
  const auto factor = static_cast<float>(spec.factor);
  const auto ramp = spec.scaling == Scaling::kYarn ? yarn_ramp(spec) : std::vector<float>();
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float power = std::pow(static_cast<float>(spec.theta), static_cast<float>(2 * i) / static_cast<float>(spec.rotary_size));
    float frequency = 1.0f / power;
    if (spec.scaling == Scaling::kLinear) frequency /= factor;
    if (spec.scaling == Scaling::kLlama3) frequency = llama3_frequency(spec, frequency);
    if (spec.scaling == Scaling::kYarn) {
      const float kept = 1 - ramp[i];
      frequency = 1.0f / (factor * power) * (1 - kept) + frequency * kept;
    }
    if (spec.scaling == Scaling::kLongRope) frequency = 1.0f / (static_cast<float>((long_rows ? spec.long_factors : spec.short_factors).at(i)) * power);
    if (!spec.frequency_divisors.empty()) frequency /= spec.frequency_divisors.at(i);
    frequencies[i] = frequency;
  }
  return frequencies;
}

RopeTable make_rope_table(const RopeSpec& spec, int64_t num_positions) {
  const bool two = spec.scaling == RopeSpec::Scaling::kLongRope;
  const int64_t pairs = spec.rotary_size / 2, rows = two ? 2 * num_positions : num_positions;
  const auto attention_factor = static_cast<float>(spec.attention_factor);
  RopeTable table;
  table.cosine_PE = at::empty({rows, pairs}, at::kFloat);
  table.sine_PE = at::empty({rows, pairs}, at::kFloat);
  table.neighbouring_pairs = spec.neighbouring_pairs;
  table.num_positions = num_positions;
  table.longest_short = two ? static_cast<int64_t>(spec.original_max_positions) : 0;
  for (int64_t half = 0; half < (two ? 2 : 1); ++half) {
    const auto frequencies = rope_frequencies(spec, half == 1);
    float* cosine = table.cosine_PE.data_ptr<float>() + half * num_positions * pairs;
    float* sine = table.sine_PE.data_ptr<float>() + half * num_positions * pairs;
    for (int64_t position = 0; position < num_positions; ++position) {
      for (int64_t i = 0; i < pairs; ++i) {
        const float angle = static_cast<float>(position) * frequencies[i];
        cosine[position * pairs + i] = std::cos(angle) * attention_factor;
        sine[position * pairs + i] = std::sin(angle) * attention_factor;
      }
    }
  }
  if (spec.query_temperature != 0) {
    table.query_scale_P = at::empty({num_positions}, at::kFloat);
    for (int64_t position = 0; position < num_positions; ++position) {
      const auto period = std::floor(static_cast<float>(position) / static_cast<float>(spec.original_max_positions));
      table.query_scale_P.data_ptr<float>()[position] = 1 + static_cast<float>(spec.query_temperature) * std::log(1 + period);
    }
  }
  return table;
}

}  // namespace graft
