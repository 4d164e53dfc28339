#include "trainer/recipe/learning_rate.h"

#include <cmath>
#include <map>

#include "kernels/common/error.h"

namespace graft {

double auto_learning_rate(const std::string& family, int64_t hidden_size) {
  static const std::map<std::string, double> kExponents = {{"llama", 0.781}, {"qwen2", 0.0775}, {"qwen3", 0.0775}};
  const auto found = kExponents.find(family);
  if (found == kExponents.end()) {
    fail("recipe", "expected optimizer.learning_rate to be a number for the family {}, got auto — only llama, qwen2 and qwen3 are calibrated; "
         "try 2e-4, then a third and three times that", family);
  }
  if (hidden_size < 1) fail("recipe", "expected a hidden size of at least 1, got {}", hidden_size);
  return 5e-5 * 10 * std::pow(2000.0 / static_cast<double>(hidden_size), found->second);
}

}  // namespace graft
