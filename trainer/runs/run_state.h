// What a run is at a step, and how it survives any kill (DESIGN section 3): a new folder, fsync, its manifest with SHA-256 last, rename, fsync of
// the parent. A folder without a valid manifest is not a checkpoint.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <nlohmann/json.hpp>

#include "trainer/runs/student_answers.h"

namespace graft {

struct RunState {
  int64_t step = 0;                      // optimizer steps done
  std::string chain;                     // SHA-256 chain up to this step
  std::optional<double> best_loss;       // validation
  int64_t best_step = 0;
  int64_t evaluations_without_improvement = 0;
  int64_t optimizer_steps = 0;
  int64_t tokens = 0, supervised_tokens = 0;   // trained on so far
  double seconds = 0;                    // of training, over all parts of the run
  std::vector<StudentAnswer> answers;    // that the student wrote for steps to come
};

struct StateTensors {
  at::Tensor parameters, first_moment, second_moment;   // flat float32
};

struct StoredCheckpoint {
  int64_t step = 0;
  std::filesystem::path folder;
  std::string adapter_sha256;
};

// checkpoints/step-000050. Returns the SHA-256 of the adapter's bytes. MachineError when the disk refuses; older checkpoints stay.
std::string save_checkpoint(const std::filesystem::path& checkpoints, const RunState& state, const StateTensors& tensors);

// As state.json of a checkpoint holds it.
nlohmann::ordered_json state_json(const RunState& state);
RunState state_from_json(const nlohmann::ordered_json& json);

// Complete checkpoints by rising step. Half-written folders are removed; a complete one whose hashes do not match is skipped, with its name in `damaged`.
std::vector<StoredCheckpoint> list_checkpoints(const std::filesystem::path& checkpoints, std::vector<std::string>* damaged = nullptr);

// Fills tensors (which have their sizes) from a checkpoint.
RunState load_checkpoint(const std::filesystem::path& folder, StateTensors& tensors);

// Removes all but the `last` newest and the step `best` (-1: none).
void prune_checkpoints(const std::filesystem::path& checkpoints, int64_t last, int64_t best);

// The chain's next entry: SHA-256(previous, step, row ids, loss bits, gradient-norm bits).
std::string next_chain_entry(const std::string& previous, int64_t step, const std::vector<std::string>& row_ids, double loss, double gradient_norm);

}  // namespace graft
