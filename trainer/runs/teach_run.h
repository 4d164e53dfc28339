// graft teach: what a teacher says of a recipe's training and validation rows, written once for all runs that read it.
#pragma once
#include <cstdint>

#include <nlohmann/json.hpp>

#include "trainer/recipe/recipe.h"

namespace graft {

struct TeachResult {
  int exit_code = 0;                    // 128 + signal where one stopped it: what is finished stays
  nlohmann::ordered_json summary;
};

// Rows that the store has are left out; the others are computed in packs and kept shard by shard. UserError for a recipe that does not distil from a cache, or a
// licence that nobody accepted; MachineError when the disk is full: what was written stays.
TeachResult teach(const Recipe& recipe);

}  // namespace graft
