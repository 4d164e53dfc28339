#include "trainer/runs/finish_run.h"

#include <algorithm>

#include <ATen/ops/zeros_like.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <sys/resource.h>

#include "checkpoints/atomic_file.h"
#include "checkpoints/hash.h"
#include "kernels/common/error.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/exports/export.h"
#include "trainer/report/html_report.h"
#include "trainer/report/log_file.h"
#include "trainer/runs/run_importance.h"
#include "trainer/runs/test_scores.h"
#include "trainer/verify/certificate.h"

namespace graft {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

void load_best_adapter(PreparedRun& run, const RunFolder& folder, const RunState& state) {
  for (const auto& checkpoint : list_checkpoints(folder.checkpoints())) {
    if (checkpoint.step != state.best_step) continue;
    StateTensors tensors{run.adapters->parameters, at::zeros_like(run.adapters->parameters), at::zeros_like(run.adapters->parameters)};
    load_checkpoint(checkpoint.folder, tensors);
    log().info(fmt::format("the adapter is that of step {}, with the lowest validation loss ({:.4f})", state.best_step, *state.best_loss));
    return;
  }
  throw MachineError("run", fmt::format("the best checkpoint, step {}, is no longer there — resume from a copy of the run folder", state.best_step));
}

// The adapter that the run ends with: the best by validation loss, else the last.
void take_best_adapter(PreparedRun& run, const RunFolder* folder, const RunState& state) {
  if (!state.best_loss || run.recipe.run.keep_best == 0 || state.best_step == state.step) return;
  if (folder) load_best_adapter(run, *folder, state);
  run.group->broadcast(run.adapters->parameters, "sharing the best adapter");
  run.adapters_changed();
}

std::string file_name_of(const std::string& format, const std::string& base) {
  auto stem = fs::path(base).filename().string();
  if (stem.ends_with(".gguf")) stem.resize(stem.size() - 5);
  if (format == "gguf-lora") return stem + ".lora.gguf";
  if (format.starts_with("gguf:")) return stem + ".tuned." + format.substr(5) + ".gguf";
  auto folder = format;
  std::replace(folder.begin(), folder.end(), ':', '-');
  return folder;
}

std::string certificate_name(std::string format) {
  std::replace(format.begin(), format.end(), ':', '-');
  return format + ".json";
}

int64_t peak_memory_bytes() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

// Allocated by tensors at most, of the GPU's memory.
int64_t peak_device_memory_bytes(c10::Device device) {
  const auto stats = c10::getDeviceAllocator(device.type())->getDeviceStats(device.index());
  return stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].peak;
}

void add_forgetting(const PreparedRun& run, const RunFolder& folder, std::optional<ordered_json>& evaluation, ordered_json& summary) {
  const auto forgetting = measure_forgetting(run);
  if (!evaluation) evaluation = ordered_json::object();
  (*evaluation)["forgetting"] = summary["forgetting"] = {{"tokens", forgetting.tokens}, {"perplexity_before", forgetting.perplexity_before},
                                                         {"perplexity_after", forgetting.perplexity_after}, {"kl_from_base", forgetting.divergence}};
  write_file_atomic(folder.path() / "evaluation.json", evaluation->dump(1) + "\n");
  log().info(fmt::format("forgetting, on {} tokens of data.general: perplexity {:.2f} (base {:.2f}), KL from the base {:.4f} nats a token", forgetting.tokens, forgetting.perplexity_after,
                         forgetting.perplexity_before, forgetting.divergence));
}

}  // namespace

TrainResult finish_run(PreparedRun& run, const RunFolder* writes, const RunState& state, Manifest manifest) {
  const int64_t training_peak = peak_memory_bytes();
  if (const auto device = run.device.device(); !device.is_cpu()) manifest.extra["peak_device_memory_bytes"] = peak_device_memory_bytes(device);
  take_best_adapter(run, writes, state);
  if (!writes) {
    score_test_rows(run, nullptr);
    run.group->leave();
    return {};
  }
  const auto& folder = *writes;
  fs::remove_all(folder.adapter());   // of an earlier end of this run
  save_adapter(*run.adapters, run.recipe.adapter, run.files.base.filename().string(), folder.adapter());
  const auto adapter_sha256 = sha256_file(folder.adapter() / "adapter_model.safetensors");
  log().info(fmt::format("adapter: {} (SHA-256 {}...)", (folder.path() / "adapter").string(), adapter_sha256.substr(0, 16)));

  TrainResult result;
  auto& summary = result.summary;
  summary = {{"run", folder.path().filename().string()}, {"steps", state.step}, {"adapter_sha256", adapter_sha256}, {"chain", state.chain}};
  if (state.best_loss) summary["validation_loss"] = *state.best_loss;
  auto evaluation = score_test_rows(run, writes);
  run.group->leave();
  if (run.dataset.general.num_sequences() > 0) add_forgetting(run, folder, evaluation, summary);
  if (evaluation) {
    for (const auto* side : {"before", "after", "teacher"}) {
      if (evaluation->contains(side)) summary[side] = (*evaluation)[side];
    }
  }

  std::optional<TrainedReference> reference;
  std::shared_ptr<const ImportanceMatrix> of_training_rows;
  std::unique_ptr<InputProducts> products;
  ordered_json exports = ordered_json::array();
  fs::remove_all(folder.certificates());
  make_private_directory(folder.certificates());
  make_private_directory(folder.exports());
  for (const auto& wanted : run.recipe.exports) {
    ExportRequest request;
    request.base = run.files.base;
    request.decoder = run.decoder.get();
    request.adapters = run.adapters.get();
    request.options = run.recipe.adapter;
    request.format = wanted.format;
    request.out = folder.exports() / file_name_of(wanted.format, run.files.base.string());
    request.tokenizer = run.context.tokenizer;
    request.chat_template = run.context.chat_template;
    request.facts = export_facts(manifest);
    request.importance = planned_importance(wanted);
    if (wanted.importance == "training_rows") {
      if (!of_training_rows) {
        of_training_rows = importance_of_training_rows(run, *run.decoder);
        write_importance_matrix(*of_training_rows, folder.exports() / "importance.gguf");
      }
      request.importance = of_training_rows;
    }
    if (wanted.rounding == "error_feedback") {
      if (!products) products = products_of_training_rows(run);
      request.products = products.get();
    }
    request.replace = true;
    const auto exported = export_model(request);
    log().info(fmt::format("export {}: {} ({:.1f} MiB)", wanted.format, exported.path.filename().string(), static_cast<double>(exported.bytes) / 1048576.0));
    for (const auto& note : exported.notes) log().info("  " + note);
    if (!exported.warning.empty()) log().warning(exported.warning);
    ordered_json entry = {{"format", wanted.format}, {"file", exported.path.filename().string()}, {"bytes", exported.bytes}, {"serve", exported.serve}};
    if (wanted.verify) {
      if (!reference) reference.emplace(run);
      CertificateRequest certificate_request;
      certificate_request.artefact = {exported.path, wanted.format, run.files.base};
      certificate_request.max_mean_kl = wanted.max_mean_kl;
      certificate_request.min_share_of_gain = wanted.min_share_of_gain;
      if (!exported.serve.empty()) certificate_request.serve_command = without_absolute_paths(exported.serve.front());
      certificate_request.warning = exported.warning;
      const auto certificate = make_certificate(*reference, certificate_request);
      write_file_atomic(folder.certificates() / certificate_name(wanted.format), certificate.dump(1) + "\n");
      log().info(certificate_summary(certificate));
      if (!certificate["passed"].get<bool>()) result.exit_code = 1;
      entry["passed"] = certificate["passed"];
      entry["mean_kl"] = certificate["mean_kl"];
      entry["share_of_gain_kept"] = certificate["share_of_gain_kept"];
    }
    exports.push_back(entry);
  }
  summary["exports"] = exports;
  manifest.extra["steps"] = state.step;
  manifest.extra["seconds"] = state.seconds;
  manifest.extra["peak_memory_bytes"] = training_peak;
  manifest.extra["chain"] = state.chain;
  manifest.extra["adapter_sha256"] = adapter_sha256;
  write_manifest(folder.manifest(), manifest);
  write_report(folder.path());
  log().info(fmt::format("report: {}", (folder.path() / "report.html").string()));
  for (const auto& entry : exports) {
    for (const auto& command : entry["serve"]) log().info(fmt::format("serve {}: {}", entry["format"].get<std::string>(), command.get<std::string>()));
  }
  return result;
}

}  // namespace graft
