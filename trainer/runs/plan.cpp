#include "trainer/runs/plan.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <set>

#include <sys/statvfs.h>

#include "data/rows/packing.h"
#include "data/teacher_signals/server_teacher.h"
#include "kernels/common/error.h"
#include "trainer/exports/export.h"
#include "trainer/models/families/licences.h"
#include "trainer/optimizers/schedule.h"
#include "trainer/report/machine_info.h"
#include "trainer/runs/plan_processes.h"
#include "trainer/runs/device_memory.h"
#include "trainer/runs/run_importance.h"
#include "trainer/runs/teacher_inputs.h"

namespace graft {

using nlohmann::ordered_json;

namespace {

constexpr double kGiB = 1073741824.0;

ordered_json split_json(const DatasetSplit& split) {
  ordered_json labels = ordered_json::object(), histogram = ordered_json::array();
  for (const auto& [label, count] : split.statistics.rows_per_label) labels[label] = count;
  for (const auto& bin : split.statistics.lengths) histogram.push_back({bin.up_to, bin.count});
  return {{"rows", split.statistics.rows}, {"sequences", split.statistics.sequences}, {"tokens", split.statistics.tokens},
          {"supervised_tokens", split.statistics.targets}, {"longest", split.statistics.longest}, {"rows_per_label", labels},
          {"length_histogram", histogram}};
}

// The tokens of a row with their mask, as text pieces.
ordered_json example_json(const TemplateContext& context, const std::vector<int32_t>& ids, const std::vector<uint8_t>& supervised) {
  ordered_json tokens = ordered_json::array();
  for (size_t i = 0; i < ids.size(); ++i) {
    auto text = context.tokenizer->token_bytes(ids[i]);
    // A token may hold part of a character: shown as the replacement character, never as broken UTF-8.
    const auto clean = nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    tokens.push_back({{"text", nlohmann::json::parse(clean)}, {"supervised", supervised[i] != 0}});
  }
  return {{"tokens", tokens}};
}

ordered_json builtin_example(const TemplateContext& context) {
  if (!context.chat_template) return nullptr;
  const ordered_json row = {{"messages", {{{"role", "user"}, {"content", "Where is my parcel?"}}, {{"role", "assistant"}, {"content", "It arrives on Tuesday."}}}}};
  const auto encoded = encode_conversation(context, row);
  return example_json(context, encoded.ids, encoded.supervised);
}

ordered_json tensor_table(const PreparedRun& run) {
  ordered_json tensors = ordered_json::array();
  std::map<std::string, size_t> line_of;
  std::map<const WeightRule*, int64_t> trainable;   // an expert's A counts with its first matrix
  for (const auto& adapter : run.adapters->adapters()) {
    for (size_t i = 0; i < adapter.rules.size(); ++i) {
      const bool has_a = static_cast<int64_t>(i) % adapter.parts == 0;
      if (adapter.is_whole) trainable[adapter.rules[i]] = adapter.rules[i]->shape.at(0) * adapter.inputs;
      else trainable[adapter.rules[i]] = adapter.rank * (adapter.rules[i]->shape.at(0) + (has_a ? adapter.inputs : 0));
    }
  }
  for (const auto& weight : run.decoder->weights()) {
    const auto found = trainable.find(weight.rule);
    const int64_t parameters = found == trainable.end() ? 0 : found->second;
    const bool of_experts = weight.rule->ours.find(".experts.") != std::string::npos;
    // One line for all experts, whose GGUF tensor is one, and one for the parts of a hub tensor that GGUF splits.
    const auto [line, is_new] = line_of.try_emplace(of_experts ? weight.rule->gguf : weight.rule->hub, tensors.size());
    if (!is_new) {
      auto& sums = tensors[line->second];
      sums["bytes"] = sums["bytes"].get<size_t>() + weight.tensor->bytes.size();
      sums["adapter_parameters"] = sums["adapter_parameters"].get<int64_t>() + parameters;
      continue;
    }
    const auto name = of_experts ? fmt::format("{} ({} experts)", weight.rule->hub, weight.rule->gguf_form.whole[0]) : weight.rule->hub;
    const auto& shape = of_experts || weight.rule->hub_form.whole.empty() ? weight.tensor->shape : weight.rule->hub_form.whole;
    tensors.push_back({{"name", name}, {"form", std::string(info(weight.tensor->type).name)}, {"bytes", weight.tensor->bytes.size()},
                       {"shape", shape}, {"adapter_parameters", parameters}});
  }
  return tensors;
}

// What training takes, measured on the micro-batch of median size.
struct Probe {
  double seconds_per_token = 0;
  double seconds_per_step = 0;   // beside its tokens: rounding the adapted weights
};

Probe probe_training(PreparedRun& run) {
  using Clock = std::chrono::steady_clock;
  const auto seconds_since = [](Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); };
  const auto sequences = run.sequences_of_step(0);
  const auto packs = run.micro_batches(sequences);
  const auto batch = run.batch_of(run.dataset.train, packs[packs.size() / 2]);
  MicroBatchOptions options;
  options.recompute = run.recompute;
  options.objective = objective_of(run.recipe.objective);
  options.hidden_matching = run.hidden_matching.get();
  run.set_device(run.device.device());
  double best = 1e30;
  for (int round = 0; round < 2; ++round) {   // the first one warms caches and the heap
    const auto start = Clock::now();
    const auto teacher = run.teacher_signals(run.dataset.train.spans(packs[packs.size() / 2]), run.dataset.train.rows_of(packs[packs.size() / 2]), batch);
    options.teacher = teacher ? &*teacher : nullptr;
    run_micro_batch(*run.decoder, run.adapters.get(), batch, options);
    best = std::min(best, seconds_since(start));
  }
  const auto start = Clock::now();
  run.adapters_changed();
  const double update = seconds_since(start);
  run.adapters->gradients.zero_();
  run.set_device(c10::kCPU);
  return {best / static_cast<double>(batch.num_tokens()), update};
}

int64_t free_disk(const std::filesystem::path& path) {
  auto folder = std::filesystem::absolute(path);
  while (!folder.empty() && !std::filesystem::exists(folder)) folder = folder.parent_path();
  struct statvfs stats = {};
  if (statvfs(folder.c_str(), &stats) != 0) return 0;
  return static_cast<int64_t>(stats.f_bavail) * static_cast<int64_t>(stats.f_frsize);
}

int64_t disk_needed(const PreparedRun& run) {
  const int64_t checkpoint = run.adapters->num_parameters() * 12;
  int64_t elements = 0;
  for (const auto& weight : run.decoder->weights()) elements += weight.tensor->num_elements();
  int64_t bytes = checkpoint * (run.recipe.run.keep_last + run.recipe.run.keep_best + 1) + run.adapters->num_parameters() * 4;
  for (const auto& wanted : run.recipe.exports) {
    const auto& format = wanted.format;
    bytes += format.starts_with("peft") || format == "gguf-lora" ? run.adapters->num_parameters() * 4
             : format.ends_with("F32")                           ? elements * 4
             : format.ends_with("16") || format == "safetensors" || hub_form_from_name(format) ? elements * 2
             : format == "gguf:Q8_0" || format == "gguf:Q6_K"    ? elements * 17 / 16
                                                                 : elements * 3 / 4;
  }
  return bytes;
}

// What an export would refuse is said before anything is trained.
std::vector<std::string> refused_exports(const PreparedRun& run) {
  std::vector<std::string> refused;
  for (const auto& wanted : run.recipe.exports) {
    ExportRequest request;
    request.base = run.files.base;
    request.decoder = run.decoder.get();
    request.adapters = run.adapters.get();
    request.options = run.recipe.adapter;
    request.format = wanted.format;
    request.tokenizer = run.context.tokenizer;
    try {
      request.importance = planned_importance(wanted);
      if (wanted.rounding == "error_feedback") check_takes_feedback(parse_export_format(wanted.format));
      plan_export(request);
    } catch (const UserError& error) {
      refused.push_back(fmt::format("export {}: {}", wanted.format, error.what()));
    }
  }
  return refused;
}

// What `graft teach` would send to a server.
void plan_server(PreparedRun& run, ordered_json& json, std::vector<std::string>& errors) {
  const auto& teacher = run.recipe.teacher;
  const auto address = server_address(*teacher.server);
  std::set<std::string> seen;
  int64_t tokens = 0, taught = 0, tokens_before = 0;
  for (const auto* split : {&run.dataset.train, &run.dataset.validation}) {
    for (const auto sequence : missing_signals(run, run.teacher_store.get(), *split)) {
      const auto span = split->spans({sequence}).front();
      const auto mask = run.taught_mask(span);
      if (!seen.insert(taught_row_hash(span.ids, mask)).second) continue;
      tokens += static_cast<int64_t>(span.ids.size());
      for (size_t i = 1; i < mask.size(); ++i) {
        if (mask[i]) ++taught, tokens_before += static_cast<int64_t>(i);
      }
    }
  }
  json["server"] = {{"host", address.host}, {"rows", seen.size()}, {"tokens", tokens}, {"taught_tokens", taught}, {"tokens_before_taught", tokens_before}};
  if (!address.loopback && !address.encrypted) run.notes.push_back("the server is another machine, and its URL begins with http: rows and key go there unencrypted");
  if (seen.empty()) return;
  try {
    key_of_variable(teacher.key_env.value_or(""));
  } catch (const UserError& error) {
    errors.push_back(error.what());
  }
}

// What is said of the teacher, and why it cannot teach these rows.
void plan_teacher(PreparedRun& run, ordered_json& json, std::vector<std::string>& errors) {
  const auto& teacher = run.recipe.teacher;
  json["teacher"] = {{"model", teacher_name(run)}, {"adapter", run.teacher_files.adapter.has_value() && teacher.has_files()}, {"signal", teacher.signal},
                     {"licence", teacher_licence(run)}};
  const auto licence = check_licence(teacher_licences(run), run.recipe.accept_licence);
  if (!licence.problem.empty()) errors.push_back("the teacher: " + licence.problem);
  if (teacher.server) plan_server(run, json["teacher"], errors);
  if (teacher.cached()) {
    const auto* store = run.teacher_store.get();
    const size_t missing = missing_signals(run, store, run.dataset.train).size() + missing_signals(run, store, run.dataset.validation).size();
    json["teacher"]["missing_rows"] = missing;
    if (run.teacher_store) {
      json["teacher"]["bytes_per_token"] = static_cast<double>(run.teacher_store->num_bytes()) / static_cast<double>(std::max<int64_t>(1, run.teacher_store->num_tokens()));
      if (missing > 0) errors.push_back(fmt::format("the teacher's store lacks {} rows — run `graft teach` with this recipe: it adds them", missing));
    } else {
      errors.push_back(run.no_teacher_store);
    }
    if (missing > 0) return;
  }
  if (teacher.answers()) {
    const auto& answers = run.answers;
    json["teacher"]["answers"] = {{"kept", answers.kept}, {"missing", answers.missing}, {"unfinished", answers.unfinished}, {"wrong", answers.wrong}};
    if (!run.teacher_store) errors.push_back(run.no_teacher_store);
    else if (answers.missing > 0) errors.push_back(fmt::format("the teacher's store lacks answers to {} rows — run `graft teach` with this recipe: it adds them", answers.missing));
    return;
  }
  const auto check = check_teacher(run);
  json["teacher"]["check"] = {{"tokens", check.tokens}, {"agreement", check.agreement}, {"teacher_loss", check.teacher_loss}, {"shifted_loss", check.shifted_loss}, {"divergence", check.divergence}};
  if (check.spans > 0) json["teacher"]["check"]["spans"] = check.spans;
  if (run.hidden_matching) json["teacher"]["check"]["hidden_state_loss"] = check.hidden_state_loss;
  if (const auto problem = check.problem(); !problem.empty()) errors.push_back(problem);
  if (const auto note = check.note(); !note.empty()) run.notes.push_back(note);
}

}  // namespace

Plan make_plan(PreparedRun& run, bool probe, int processes) {
  Plan plan;
  auto& json = plan.json;
  const auto& spec = run.decoder->spec();
  json["model"] = {{"base", run.files.base.filename().string()}, {"family", spec.family}, {"layers", spec.layers.size()}, {"hidden_size", spec.hidden_size},
                   {"vocabulary", spec.vocab_size}, {"compute", run.recipe.model.compute}, {"licence", declared_licence(run.files.base)}};
  json["adapter"] = {{"modules", run.adapters->adapters().size()}, {"parameters", run.adapters->num_parameters() - (run.hidden_matching ? run.hidden_matching->num_parameters() : 0)}, {"rank", run.recipe.adapter.rank},
                     {"scale", run.adapters->scale()}, {"quantization_aware", run.recipe.adapter.quantization_aware}};
  json["rows"] = {{"train", run.dataset.train.statistics.rows}, {"validation", run.dataset.validation.statistics.rows}, {"test", run.dataset.test.statistics.rows}};
  json["splits"] = {{"train", split_json(run.dataset.train)}, {"validation", split_json(run.dataset.validation)}, {"test", split_json(run.dataset.test)}};
  json["tokens"] = run.dataset.train.statistics.tokens;
  json["supervised_tokens"] = run.dataset.train.statistics.targets;
  json["length_histogram"] = json["splits"]["train"]["length_histogram"];
  json["rows_per_label"] = json["splits"]["train"]["rows_per_label"];
  const double tokens_per_step = static_cast<double>(run.dataset.train.statistics.tokens) / static_cast<double>(run.steps_per_epoch);
  json["steps"] = {{"total", run.total_steps}, {"per_epoch", run.steps_per_epoch}, {"warmup", warmup_steps(run.recipe.schedule, run.total_steps)},
                   {"tokens_per_step", tokens_per_step}, {"learning_rate", run.learning_rate}};
  json["example"] = builtin_example(run.context);
  json["tensors"] = tensor_table(run);
  const auto memory = estimate_memory(run, run.recompute);
  const auto available = machine_info().memory_bytes, disk = free_disk(run.recipe.run.out), needed = disk_needed(run);
  json["memory_bytes"] = memory.total();
  json["memory"] = {{"base", memory.base}, {"adapters", memory.adapters}, {"activations", memory.activations}, {"scratch", memory.scratch},
                    {"program", memory.program}, {"available", available}};
  if (run.served) json["memory"]["served_weights"] = memory.served;
  if (run.teacher) json["memory"]["teacher"] = memory.teacher;
  json["objective"] = {{"kind", run.recipe.objective.kind}, {"formula", objective_formula(run.recipe.objective, run.recipe.teacher)}};
  if (run.recipe.objective.distils()) plan_teacher(run, json, plan.errors);
  json["disk_bytes"] = needed;
  json["device"] = run.device.name();
  bool fits = true;   // or the probe would fail
  if (run.device.gpu) {
    const auto there = estimate_device_memory(run, run.recompute);
    const auto free_there = available_bytes(*run.device.gpu);
    json["device_memory_bytes"] = there.total();
    json["device_memory"] = {{"base", there.base}, {"adapters", there.adapters}, {"activations", there.activations}, {"scratch", there.scratch},
                             {"program", there.program}, {"available", free_there}};
    fits = there.total() <= free_there;
    if (!fits) {
      plan.errors.push_back(fmt::format("needs {:.2f} GiB of memory on the GPU, {:.2f} are free — lower data.pack_tokens, set run.recompute: layer, or run.device: cpu",
                                        there.total() / kGiB, free_there / kGiB));
    }
  }
  if (probe && fits && plan.errors.empty()) {
    const auto measured = probe_training(run);
    const double per_step = measured.seconds_per_token * tokens_per_step + measured.seconds_per_step;
    json["seconds"] = per_step * static_cast<double>(run.total_steps);
    json["tokens_per_s"] = tokens_per_step / per_step;
  }
  json["skipped_tensors"] = skipped_tensors(run.decoder->weight_map(), run.decoder->source());
  if (processes > 1) json["parallel"] = plan_processes(run, processes);
  auto licence = check_licence(declared_licences(run.files.base), run.recipe.accept_licence);
  json["licence"] = {{"identifier", licence.identifier}, {"problem", licence.problem}};
  if (!licence.problem.empty()) plan.errors.push_back(licence.problem);
  licence.notes.insert(licence.notes.end(), run.notes.begin(), run.notes.end());
  json["notes"] = licence.notes;
  if (const auto count = json["skipped_tensors"].size(); count > 0) {
    json["notes"].push_back(fmt::format("skipped: {} tensors of the base that are not part of its text model, {} to {}: not trained, not in exports", count,
                                        json["skipped_tensors"].front().get<std::string>(), json["skipped_tensors"].back().get<std::string>()));
  }
  ordered_json findings = ordered_json::array();
  for (const auto& finding : run.dataset.findings) {
    const bool error = finding.severity == DatasetFinding::Severity::kError;
    findings.push_back({{"severity", error ? "error" : finding.severity == DatasetFinding::Severity::kWarning ? "warning" : "note"},
                        {"code", finding.code}, {"message", finding.message}, {"places", finding.places}});
    if (error) plan.errors.push_back(finding.message);
  }
  json["findings"] = findings;
  if (memory.total() > available) {
    plan.errors.push_back(fmt::format("needs {:.2f} GiB of memory, the machine has {:.2f} — lower data.pack_tokens or set run.recompute: layer", memory.total() / kGiB, available / kGiB));
  }
  if (needed > disk) plan.errors.push_back(fmt::format("needs {:.2f} GiB of disk, {:.2f} are free — free some, or give another run.out", needed / kGiB, disk / kGiB));
  for (auto& refused : refused_exports(run)) plan.errors.push_back(std::move(refused));
  json["errors"] = plan.errors;
  return plan;
}

}  // namespace graft
