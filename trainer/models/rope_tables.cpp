#include "trainer/models/rope_tables.h"

#include <cmath>

#include <ATen/ops/empty.h>

namespace graft {

// In float32 step by step, as transformers does: at position 1000 the rounding of an angle is 6e-5, far above that of anything behind it, and the
// reference decides.
std::vector<float> rope_frequencies(const RopeSpec& spec) {
  std::vector<float> frequencies(spec.rotary_size / 2);
  const auto factor = static_cast<float>(spec.factor);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    float frequency = 1.0f / std::pow(static_cast<float>(spec.theta), static_cast<float>(2 * i) / static_cast<float>(spec.rotary_size));
    if (spec.scaling == RopeSpec::Scaling::kLinear) frequency /= factor;
    if (spec.scaling == RopeSpec::Scaling::kLlama3) {
      const auto original = static_cast<float>(spec.original_max_positions);
      const auto low = static_cast<float>(spec.low_frequency_factor), high = static_cast<float>(spec.high_frequency_factor);
      const float wavelength = static_cast<float>(2 * M_PI) / frequency;
      if (wavelength > original / low) {
        frequency /= factor;
      } else if (wavelength >= original / high) {
        const float smooth = (original / wavelength - low) / (high - low);
        frequency = (1 - smooth) * frequency / factor + smooth * frequency;
      }
    }
    if (!spec.frequency_divisors.empty()) frequency /= spec.frequency_divisors.at(i);
    frequencies[i] = frequency;
  }
  return frequencies;
}

RopeTable make_rope_table(const RopeSpec& spec, int64_t num_positions) {
  const auto frequencies = rope_frequencies(spec);
  const auto pairs = static_cast<int64_t>(frequencies.size());
  RopeTable table{at::empty({num_positions, pairs}, at::kFloat), at::empty({num_positions, pairs}, at::kFloat)};
  for (int64_t position = 0; position < num_positions; ++position) {
    for (int64_t i = 0; i < pairs; ++i) {
      const float angle = static_cast<float>(position) * frequencies[i];
      table.cosine_PE.data_ptr<float>()[position * pairs + i] = std::cos(angle);
      table.sine_PE.data_ptr<float>()[position * pairs + i] = std::sin(angle);
    }
  }
  return table;
}

}  // namespace graft
