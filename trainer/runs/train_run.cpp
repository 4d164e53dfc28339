#include "trainer/runs/train_run.h"

#include <ATen/Parallel.h>
#include <fmt/ranges.h>

#include "checkpoints/atomic_file.h"
#include "checkpoints/hash.h"
#include "kernels/common/error.h"
#include "trainer/recipe/recipe_differences.h"
#include "trainer/report/log_file.h"
#include "trainer/report/progress.h"
#include "trainer/runs/finish_run.h"
#include "trainer/runs/plan.h"
#include "trainer/runs/training_loop.h"

namespace graft {

namespace fs = std::filesystem;

namespace {

// Refuses to resume a run that would not give the same bytes, listing every difference.
bool check_resume(const RunFolder& folder, const Recipe& recipe, const Manifest& now, bool not_bit_exact) {
  const auto old = load_recipe(folder.recipe(), {});
  const auto conflicts = resume_conflicts(resolved_json(old, folder.path()), resolved_json(recipe, folder.path()));
  if (!conflicts.empty()) {
    fail("run", "expected the recipe that the run in {} was started with, got other values:\n  {}\n— start a new run with another --out, or take these back",
         folder.path().filename().string(), fmt::join(conflicts, "\n  "));
  }
  const auto stored = read_manifest(folder.manifest());
  const auto differences = manifest_differences(stored, now);
  if (differences.empty()) return stored.bit_exact;
  if (stored.rows_sha256 != now.rows_sha256 || stored.tokenizer_sha256 != now.tokenizer_sha256 || stored.template_sha256 != now.template_sha256) {
    fail("run", "expected the base, data, tokenizer and template that the run was started with, got changed ones:\n  {}\n— start a new run with another --out",
         fmt::join(differences, "\n  "));
  }
  if (!not_bit_exact) {
    fail("run", "expected the machine and program that the run was started with, so that it ends with the same bytes, got:\n  {}\n— resume there, or give --not-bit-exact to go on all the same (the manifest records it)",
         fmt::join(differences, "\n  "));
  }
  log().warning(fmt::format("the run goes on, but not bit for bit: {}", fmt::join(differences, "; ")));
  return false;
}

// The newest complete checkpoint, if there is one.
std::optional<RunState> newest_state(const RunFolder& folder, PreparedRun& run, AdamW& optimizer) {
  std::vector<std::string> damaged;
  const auto checkpoints = list_checkpoints(folder.checkpoints(), &damaged);
  for (const auto& name : damaged) log().warning(fmt::format("checkpoint {} is damaged (its SHA-256 does not match) and is skipped", name));
  if (checkpoints.empty()) return std::nullopt;
  StateTensors tensors{run.adapters->parameters, optimizer.first_moment, optimizer.second_moment};
  auto state = load_checkpoint(checkpoints.back().folder, tensors);
  optimizer.num_steps = state.optimizer_steps;
  log().info(fmt::format("resuming at step {} of {}", state.step, run.total_steps));
  return state;
}

}  // namespace

TrainResult train(const Recipe& recipe, const TrainOptions& options) {
  if (recipe.run.out.empty()) fail("recipe", "expected run.out or --out to name the run's folder, got neither");
  const RunFolder folder(recipe.run.out, options.resume);
  log().open(folder.log());
  install_stop_signals();
  std::unique_ptr<Progress> reading;
  std::string stage;
  auto run = prepare_run(recipe, [](const std::string& text) { log().info(text); },
                         [&](const std::string& name, int64_t done, int64_t total) {
                           if (name != stage) reading = std::make_unique<Progress>(log(), stage = name, total, Progress::Options());
                           reading->update(done);
                         });
  reading.reset();
  auto plan = make_plan(run, /*probe=*/false);
  for (const auto& finding : run.dataset.findings) {
    if (finding.severity == DatasetFinding::Severity::kError) continue;
    log().info(fmt::format("{}: {}", finding.severity == DatasetFinding::Severity::kWarning ? "warning" : "note", finding.message));
    for (size_t i = 0; i < finding.places.size() && i < 10; ++i) log().info("  " + finding.places[i]);
  }
  for (const auto& note : run.notes) log().info(note);
  run.dataset.require_usable();
  if (!plan.errors.empty()) fail("plan", "{}", fmt::join(plan.errors, "\n"));

  auto manifest = manifest_of(run);
  const bool existing = options.resume && fs::exists(folder.manifest());
  if (existing) {
    const auto stored = read_manifest(folder.manifest());
    manifest.bit_exact = check_resume(folder, run.recipe, manifest, options.not_bit_exact);
    manifest.started = stored.started;
  }
  const auto yaml = resolved_yaml(run.recipe, folder.path());
  manifest.recipe_sha256 = sha256(yaml);
  write_file_atomic(folder.recipe(), yaml);
  write_file_atomic(folder.path() / "plan.json", plan.json.dump(1) + "\n");
  write_manifest(folder.manifest(), manifest);   // last: a folder with a manifest is a run

  run.set_device(run.device.device());
  AdamW optimizer(run.recipe.optimizer, run.adapters->num_parameters(), run.device.device());
  RunState state;
  state.chain = sha256(manifest.rows_sha256 + manifest.recipe_sha256);
  bool resumed = false;
  if (existing) {
    if (const auto newest = newest_state(folder, run, optimizer)) {
      state = *newest;
      resumed = true;
    }
  }
  log().info(fmt::format("{} {} steps on {}: {} rows, LoRA rank {} on {} layers of {}", resumed ? "training on to" : "training", run.total_steps,
                         run.device.gpu ? run.device.name() : fmt::format("{} threads", run.threads),
                         run.dataset.train.statistics.rows, run.recipe.adapter.rank, run.adapters->adapters().size(), run.files.base.filename().string()));
  const auto loop = run_training_loop(run, folder, state, optimizer);
  if (loop.end == LoopEnd::kInterrupted) return {128 + loop.signal, {{"interrupted_at_step", state.step}}};
  run.set_device(c10::kCPU);
  return finish_run(run, folder, state, optimizer, manifest);
}

}  // namespace graft
