#include "trainer/models/rope_tables.h"

#include <cmath>

#include <ATen/ops/empty.h>

namespace graft {

std::vector<double> rope_frequencies(const RopeSpec& spec) {
  std::vector<double> frequencies(spec.rotary_size / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    // transformers computes the frequencies in float32; the difference is below its own rounding at the angles of a document.
    double frequency = 1 / std::pow(spec.theta, 2.0 * static_cast<double>(i) / static_cast<double>(spec.rotary_size));
    if (spec.scaling == RopeSpec::Scaling::kLinear) frequency /= spec.factor;
    if (spec.scaling == RopeSpec::Scaling::kLlama3) {
      const double wavelength = 2 * M_PI / frequency;
      const double low = spec.original_max_positions / spec.low_frequency_factor, high = spec.original_max_positions / spec.high_frequency_factor;
      if (wavelength > low) {
        frequency /= spec.factor;
      } else if (wavelength > high) {
        const double smooth = (spec.original_max_positions / wavelength - spec.low_frequency_factor) /
                              (spec.high_frequency_factor - spec.low_frequency_factor);
        frequency = (1 - smooth) * frequency / spec.factor + smooth * frequency;
      }
    }
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
      const double angle = static_cast<double>(position) * frequencies[i];
      table.cosine_PE.data_ptr<float>()[position * pairs + i] = static_cast<float>(std::cos(angle));
      table.sine_PE.data_ptr<float>()[position * pairs + i] = static_cast<float>(std::sin(angle));
    }
  }
  return table;
}

}  // namespace graft
