// What differs between two resolved recipes, for --resume.
#pragma once
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace graft {

// Each "key: old -> new", in the order of `now`; a key that one lacks is (none). Arguments: resolved_json of both, with the same folder.
std::vector<std::string> recipe_differences(const nlohmann::ordered_json& old, const nlohmann::ordered_json& now);

// The differences that forbid a resume: all but run.keep, export, report, where the run and its cache lie (run.out, run.cache), how its base
// lies in memory (run.shard_base), and, while
// schedule.shape is constant in both, larger schedule.steps or schedule.epochs. A warm-up given as a share of the steps forbids those too,
// because it would have been another. Empty: the run may go on.
std::vector<std::string> resume_conflicts(const nlohmann::ordered_json& old, const nlohmann::ordered_json& now);

}  // namespace graft
