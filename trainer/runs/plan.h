// What a run would do, before it does: for `graft plan`, plan.json and the log of `train`.
#pragma once
#include <string>

#include <nlohmann/json.hpp>

#include "trainer/runs/prepared_run.h"

namespace graft {

struct Plan {
  nlohmann::ordered_json json;          // as trainer/report/html_report.h reads it
  std::vector<std::string> errors;      // why the run is refused: exit code 1
};

// probe: measure one micro-batch to estimate the time, and hold teacher and student against each other (adapters are left as they were). processes: also what each of so many would do (plan_processes.h).
Plan make_plan(PreparedRun& run, bool probe, int processes = 1);

// Text of at most 100 columns.
std::string plan_text(const Plan& plan, const PreparedRun& run, bool colour);

}  // namespace graft
