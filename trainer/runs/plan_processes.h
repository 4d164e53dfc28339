// What a run would be on several processes: for `graft plan --processes N`.
#pragma once
#include <string>

#include <nlohmann/json.hpp>

#include "trainer/runs/prepared_run.h"

namespace graft {

// {"processes", "micro_batches_per_step", "rounds_per_step", "tokens_per_step_of_the_fullest_rank", "idle_share", "memory_bytes_per_rank", "shard_base",
//  "gradient_bytes_sent_per_rank_and_step", "base_bytes_sent_per_rank_and_step"}: means over the first epoch, memory at its peak. A ring is assumed.
nlohmann::ordered_json plan_processes(const PreparedRun& run, int processes);
// Lines of the plan's section "run" for it.
std::string plan_processes_text(const nlohmann::ordered_json& json);

}  // namespace graft
