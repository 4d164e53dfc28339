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
using nlohmann::ordered_json;

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

namespace {

// What every process must have been started with, before an hour goes into data: rank 0's recipe and program. Paths may differ between machines.
void agree_on_recipe(ProcessGroup& group, const Recipe& recipe) {
  Recipe plain = recipe;
  plain.model.base = plain.run.out = "";
  plain.run.cache.reset();
  plain.adapter.from.reset();
  for (auto* sources : {&plain.data.train, &plain.data.validation, &plain.data.test, &plain.data.general}) {
    for (auto& source : *sources) source.path = "";
  }
  const auto mine = ordered_json({{"recipe", resolved_json(plain)}, {"program", program_build_id()}});
  const auto texts = group.exchange(mine.dump(), "comparing recipes");
  const auto first = ordered_json::parse(texts[0]);
  std::vector<std::string> lines;
  for (size_t rank = 1; rank < texts.size(); ++rank) {
    const auto other = ordered_json::parse(texts[rank]);
    for (const auto& line : recipe_differences(first["recipe"], other["recipe"])) lines.push_back(fmt::format("rank {}: {}", rank, line));
    if (first["program"] != other["program"]) {
      lines.push_back(fmt::format("rank {}: program build: {} -> {}", rank, first["program"].get<std::string>().substr(0, 16), other["program"].get<std::string>().substr(0, 16)));
    }
  }
  if (!lines.empty()) fail("parallel", "expected every rank to have rank 0's recipe and program, got:\n  {}\n— start all processes with the same ones", fmt::join(lines, "\n  "));
}

// The same for what was read: model, data, machine.
void agree_on_inputs(ProcessGroup& group, const Manifest& manifest, bool not_bit_exact) {
  const auto texts = group.exchange(to_json(manifest).dump(), "comparing model and data");
  const auto first = manifest_from_json(ordered_json::parse(texts[0]), "rank 0");
  std::vector<std::string> lines;
  for (size_t rank = 1; rank < texts.size(); ++rank) {
    auto other = manifest_from_json(ordered_json::parse(texts[rank]), "a rank");
    if (not_bit_exact) {
      other.machine.instruction_set = first.machine.instruction_set;
      other.machine.gpu = first.machine.gpu;
      if (other.device.starts_with("cuda") == first.device.starts_with("cuda")) other.device = first.device;   // they could not talk to each other
    }
    for (const auto& line : manifest_differences(first, other)) lines.push_back(fmt::format("rank {}: {}", rank, line));
  }
  if (!lines.empty()) fail("parallel", "expected every rank to have rank 0's model, data and kind of machine, got:\n  {}\n— give all machines the same files", fmt::join(lines, "\n  "));
}

// Rank 0's word to all.
ordered_json told_by_rank_0(ProcessGroup& group, const ordered_json& value, const std::string& operation) {
  return ordered_json::parse(group.exchange(group.leads() ? value.dump() : "null", operation)[0]);
}

// run.threads: auto. A run that goes on keeps the count it was started with; else the machine's cores are shared by its processes.
int64_t automatic_threads(const ProcessGroup& group, const RunFolder* folder) {
  if (folder && fs::exists(folder->manifest())) return read_manifest(folder->manifest()).threads;
  return std::max<int64_t>(1, machine_info().cores / group.launch().local_size);
}

void show_findings(const PreparedRun& run) {
  for (const auto& finding : run.dataset.findings) {
    if (finding.severity == DatasetFinding::Severity::kError) continue;
    log().info(fmt::format("{}: {}", finding.severity == DatasetFinding::Severity::kWarning ? "warning" : "note", finding.message));
    for (size_t i = 0; i < finding.places.size() && i < 10; ++i) log().info("  " + finding.places[i]);
  }
  for (const auto& note : run.notes) log().info(note);
}

// Every process starts from what rank 0 read.
void start_alike(PreparedRun& run, RunState& state, AdamW& optimizer, bool resumed) {
  auto& group = *run.group;
  if (group.alone()) return;
  const auto told = told_by_rank_0(group, {{"resumed", resumed}, {"state", state_json(state)}}, "sharing the state");
  if (told["resumed"].get<bool>()) {
    state = state_from_json(told["state"]);
    optimizer.num_steps = state.optimizer_steps;
    for (auto* tensor : {&run.adapters->parameters, &optimizer.first_moment, &optimizer.second_moment}) group.broadcast(*tensor, "sharing the state");
  } else {
    state.chain = told["state"]["chain"];
  }
  check_equal_adapters(run);
}

TrainResult train_together(const Recipe& recipe, const TrainOptions& options, const std::shared_ptr<ProcessGroup>& group) {
  std::optional<RunFolder> folder;   // rank 0 alone writes
  if (group->leads()) {
    folder.emplace(recipe.run.out, options.resume);
    log().open(folder->log());
  }
  install_stop_signals();
  agree_on_recipe(*group, recipe);
  std::unique_ptr<Progress> reading;
  std::string stage;
  PrepareOptions prepare;
  prepare.hash_base = true;
  prepare.group = group;
  prepare.threads = told_by_rank_0(*group, automatic_threads(*group, folder ? &*folder : nullptr), "comparing recipes").get<int64_t>();
  prepare.log = [](const std::string& text) { log().info(text); };
  prepare.progress = [&](const std::string& name, int64_t done, int64_t total) {
    if (name != stage) reading = std::make_unique<Progress>(log(), stage = name, total, Progress::Options());
    reading->update(done);
  };
  auto run = prepare_run(recipe, prepare);
  reading.reset();
  auto manifest = manifest_of(run);
  bool existing = false, resumed = false;
  Plan plan;
  if (folder) {   // what is wrong here and below ends the other ranks too
    plan = make_plan(run, /*probe=*/false);
    show_findings(run);
    run.dataset.require_usable();
    if (!plan.errors.empty()) fail("plan", "{}", fmt::join(plan.errors, "\n"));
  }
  agree_on_inputs(*group, manifest, options.not_bit_exact);   // before they connect over that device
  run.start_on_device();
  if (run.sharded) {
    log().info(fmt::format("the base is sharded: each rank keeps {:.1f} of {:.1f} MiB, and {:.1f} MiB in two buffers", run.sharded->shard_bytes() / 1048576.0,
                           run.sharded->shard_bytes() * group->size() / 1048576.0, run.sharded->buffer_bytes() / 1048576.0));
  }
  AdamW optimizer(run.recipe.optimizer, run.adapters->num_parameters(), run.device.device());
  RunState state;
  if (folder) {
    existing = options.resume && fs::exists(folder->manifest());
    if (existing) {
      const auto stored = read_manifest(folder->manifest());
      manifest.bit_exact = check_resume(*folder, run.recipe, manifest, options.not_bit_exact);
      manifest.started = stored.started;
    }
    const auto yaml = resolved_yaml(run.recipe, folder->path());
    manifest.recipe_sha256 = sha256(yaml);
    manifest.extra["processes"] = group->size();
    if (!run.recipe.accept_licence.empty()) manifest.extra["accepted_licences"] = run.recipe.accept_licence;
    write_file_atomic(folder->recipe(), yaml);
    write_file_atomic(folder->path() / "plan.json", plan.json.dump(1) + "\n");
    write_manifest(folder->manifest(), manifest);   // last: a folder with a manifest is a run
    state.chain = sha256(manifest.rows_sha256 + manifest.recipe_sha256);
    if (existing) {
      if (const auto newest = newest_state(*folder, run, optimizer)) {
        state = *newest;
        resumed = true;
      }
    }
  }
  start_alike(run, state, optimizer, resumed);
  run.adapters_changed();
  log().info(fmt::format("{} {} steps on {}{}: {} rows, {} {} layers of {}", resumed ? "training on to" : "training", run.total_steps,
                         group->alone() ? "" : fmt::format("{} processes ({}) of ", group->size(), group->launch().launcher),
                         run.device.gpu ? run.device.name() : fmt::format("{} threads", run.threads), run.dataset.train.statistics.rows,
                         run.recipe.adapter.kind == "full" ? "the whole matrices of" : fmt::format("LoRA rank {} on", run.recipe.adapter.rank), run.adapters->adapters().size(), run.files.base.filename().string()));
  if (run.recipe.objective.distils()) log().info("loss: " + objective_formula(run.recipe.objective, run.recipe.teacher));
  const auto loop = run_training_loop(run, folder ? &*folder : nullptr, state, optimizer);
  if (loop.end == LoopEnd::kInterrupted) {
    group->leave();
    return {128 + loop.signal, {{"interrupted_at_step", state.step}}};
  }
  restore_stop_signals();   // all steps are saved: from here on a signal ends the program at once, and --resume does the rest
  run.return_to_cpu();
  return finish_run(run, folder ? &*folder : nullptr, state, manifest);
}

}  // namespace

TrainResult train(const Recipe& recipe, const TrainOptions& options) {
  if (recipe.run.out.empty()) fail("recipe", "expected run.out or --out to name the run's folder, got neither");
  const auto launch = launch_environment([](const char* name) -> const char* { return std::getenv(name); });
  if (launch.alone()) return train_together(recipe, options, std::make_shared<ProcessGroup>());
  if (launch.rank > 0) log().set_level(LogLevel::kQuiet);
  const auto group = std::make_shared<ProcessGroup>(launch);
  const auto end = [&](const std::exception& error, ExitCode code) {
    if (!group->alone()) group->end(error, static_cast<int>(code));
  };
  try {
    return train_together(recipe, options, group);
  } catch (const UserError& error) {
    end(error, ExitCode::kWrongInput);
    throw;
  } catch (const std::exception& error) {
    end(error, ExitCode::kMachineFailed);
    throw;
  }
}

}  // namespace graft
