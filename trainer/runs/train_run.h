// A whole run: prepare, train, keep the best adapter, score the test rows, export, certify, report.
#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "trainer/recipe/recipe.h"

namespace graft {

struct TrainOptions {
  bool resume = false;
  bool not_bit_exact = false;   // goes on though program, threads or instruction set changed; the manifest records it
};

struct TrainResult {
  int exit_code = 0;            // 0; 1: a certificate failed; 130 or 143 after a saved stop
  nlohmann::ordered_json summary;
};

TrainResult train(const Recipe& recipe, const TrainOptions& options);

}  // namespace graft
