// What a run's model, its base, its teacher and other runs answer to the test rows, and what it has forgotten: evaluation.json, which the report shows.
#pragma once
#include <optional>

#include <nlohmann/json.hpp>

#include "trainer/runs/prepared_run.h"
#include "trainer/runs/run_folder.h"

namespace graft {

// Labelled rows by free greedy decoding, others by their loss; all processes call it, rank 0 (folder) writes. Nothing without test rows.
std::optional<nlohmann::ordered_json> score_test_rows(PreparedRun& run, const RunFolder* folder);

// On data.general, which has nothing to do with the task: what training has cost there.
struct Forgetting {
  int64_t tokens = 0;
  double perplexity_before = 0, perplexity_after = 0;
  double divergence = 0;   // KL(base || trained), nats a token
};
Forgetting measure_forgetting(const PreparedRun& run);

}  // namespace graft
