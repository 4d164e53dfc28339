// Numbers of tests: normal, around 0.
#pragma once
#include <cstdint>
#include <random>
#include <vector>

namespace graft::test {

inline std::vector<float> normal_values(size_t count, uint32_t seed, float deviation) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

}  // namespace graft::test
