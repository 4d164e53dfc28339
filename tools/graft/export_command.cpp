// graft export RUN --to FORMAT --out PATH [--importance FILE] [--layers ...] [--force]; also MODEL --adapter DIR, and MODEL alone (a conversion).
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "kernels/common/error.h"
#include "tools/graft/commands.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/exports/export.h"
#include "trainer/exports/kept_layers.h"
#include "trainer/exports/output_place.h"
#include "trainer/models/model_files.h"
#include "trainer/recipe/recipe.h"
#include "trainer/report/log_file.h"
#include "trainer/report/progress.h"
#include "trainer/runs/run_importance.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string model, adapter, format, out, importance, layers;
  WidthOptions widths;
  bool force = false;
};

// Null where the base has none: token ids are then all that the export reads.
std::shared_ptr<const Tokenizer> tokenizer_of(const fs::path& base) {
  if (fs::is_directory(base) && !fs::exists(base / "tokenizer.json")) return nullptr;
  if (!fs::is_directory(base)) {
    const GgufFile file(base);
    const auto kind = file.get_string("tokenizer.ggml.model").value_or("none");
    return kind == "none" ? nullptr : load_tokenizer(file);
  }
  return load_tokenizer(base);
}

// The template that the run trained with: an export must serve no other.
std::shared_ptr<const ChatTemplate> template_of_run(const fs::path& run, const fs::path& base, const Manifest& manifest) {
  const auto source = load_recipe(run / "recipe.yaml", {}).data.template_source;
  std::shared_ptr<const ChatTemplate> found;
  if (source == "base") {
    found = load_chat_template(base);
  } else {
    std::ifstream in(source, std::ios::binary);
    if (!in) fail("export", "expected the run's chat template {} to be readable — it is part of what was trained", source);
    found = std::make_shared<ChatTemplate>(std::string(std::istreambuf_iterator<char>(in), {}), fs::path(source).filename().string());
  }
  const auto fingerprint = found ? found->fingerprint() : "";
  if (fingerprint != manifest.template_sha256) {
    fail("export", "expected the chat template that the run trained with (SHA-256 {}), got {} ({}) — put the original template back",
         manifest.template_sha256.empty() ? "none" : manifest.template_sha256, fingerprint.empty() ? "none" : fingerprint, source);
  }
  return found;
}

// A run's own exports folder may be filled anew.
bool lies_in_exports_of(const fs::path& out, const std::optional<fs::path>& run) {
  return run && fs::weakly_canonical(out).parent_path() == fs::weakly_canonical(*run / "exports");
}

std::shared_ptr<const ImportanceMatrix> read_importance(const std::string& path) {
  return path.empty() ? nullptr : std::make_shared<const ImportanceMatrix>(read_importance_matrix(path));
}

// What is kept of a model that is cut by what its run's training rows do in it, as it is exported; or by a file's activations.
void choose_kept(const Options& options, const ModelFiles& files, Decoder& decoder, ExportRequest& request) {
  const auto count = counted_layers(options.layers);
  if (!options.layers.empty() && !count) request.layers = parse_layers(options.layers);
  if (!options.widths.any() && !count) return;
  check_widths(decoder.spec(), options.widths);
  if (count && *count >= decoder.num_layers())
    fail("export", "expected fewer than the base's {} layers, got {} — leave --layers out to keep all", decoder.num_layers(), options.layers);
  if (options.widths.any()) request.activations = read_importance(options.importance);
  if (!count && request.activations) return;
  if (!files.run) {
    fail("export", "expected rows to choose by, got a model without a run ({}) — name a run folder, whose training rows are read; or layers by their numbers and, for channels and heads, with "
         "--importance an importance matrix of this model, by llama-imatrix or of a run (exports/importance.gguf)", last_name_of(files.base));
  }
  PrepareOptions prepare;
  prepare.log = [](const std::string& text) { log().detail(text); };
  const auto run = prepare_run(load_recipe(*files.run / "recipe.yaml", {}), prepare);
  decoder.set_compute(run.decoder->compute());   // as its importance matrices are made
  if (options.widths.any() && !request.activations) request.activations = importance_of_training_rows(run, decoder);
  if (count) {
    request.layers = most_important(layer_changes_of_training_rows(run, decoder), *count);
    request.layers_chosen_by = "1 - cosine between a token's residual stream before and after each, over the run's training rows";
  }
}

void print(const ExportResult& result, bool json) {
  auto& out = log();
  for (const auto& note : result.notes) out.info("note: " + note);
  if (!result.warning.empty()) out.warning(result.warning);
  out.info(fmt::format("{}: {} tensors ({}), {} bytes", result.format, result.tensors.size(), describe_types(result.tensors), result.bytes));
  if (!json) {
    out.result(result.path.string());
    for (const auto& command : result.serve) out.result("serve: " + command);
    return;
  }
  nlohmann::ordered_json line = {{"path", result.path.string()}, {"format", result.format}, {"types", describe_types(result.tensors)}, {"bytes", result.bytes}, {"files", nlohmann::ordered_json::array()},
                                 {"notes", result.notes},        {"warning", result.warning}, {"serve", result.serve}};
  for (const auto& file : result.files) line["files"].push_back(file.string());
  out.result(line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

int run(const Options& options, bool json) {
  parse_export_format(options.format);   // before anything is loaded
  const auto files = find_model(options.model);
  ExportRequest request;
  request.base = files.base;
  request.format = options.format;
  request.out = options.out;
  request.replace = options.force || lies_in_exports_of(options.out, files.run);
  request.tokenizer = tokenizer_of(files.base);
  if (files.run) {
    const auto manifest = read_manifest(*files.run / "manifest.json");
    request.facts = export_facts(manifest);
    request.expected_base = manifest.base;
    request.chat_template = template_of_run(*files.run, files.base, manifest);
  } else {
    request.facts = {{"program", std::string("graft ") + GRAFT_VERSION}, {"base", last_name_of(files.base)}};
    request.chat_template = load_chat_template(files.base);
  }
  request.widths = options.widths;
  if (!request.widths.any()) request.importance = read_importance(options.importance);
  const auto folder = !options.adapter.empty() ? std::optional<fs::path>(options.adapter) : files.adapter;
  const auto decoder = load_decoder(files.base, ComputeType::kFloat32, files.quantize_base);
  std::unique_ptr<AdapterSet> adapters;
  if (folder) {
    request.options = adapter_options(*decoder, *folder);
    adapters = load_adapter(*decoder, *folder);
    if (files.run && options.adapter.empty()) request.options.quantization_aware = load_recipe(*files.run / "recipe.yaml", {}).adapter.quantization_aware;
  }
  choose_kept(options, files, *decoder, request);
  request.decoder = decoder.get();
  request.adapters = adapters.get();
  std::optional<Progress> progress;
  request.progress = [&](int64_t done, int64_t total) {
    if (!progress) progress.emplace(log(), "export", total, Progress::Options{});
    progress->update(done);
  };
  const auto result = export_model(request);
  if (progress) progress->finish();
  print(result, json);
  return 0;
}

}  // namespace

void add_export_command(CommandLine& line) {
  auto* command = line.add("export", "write a trained model as engines serve it: GGUF, safetensors, or the adapter alone");
  auto options = std::make_shared<Options>();
  command->add_option("MODEL", options->model, "run folder, or a model directory or .gguf file")->required();
  command->add_option("--adapter", options->adapter, "PEFT folder, for a MODEL that is no run folder");
  command->add_option("--to", options->format, fmt::format("one of {}", fmt::join(export_format_names(), ", ")))->required();
  command->add_option("--out", options->out, "file (.gguf) or folder to write")->required();
  command->add_option("--importance", options->importance, "importance matrix for quantised GGUF forms, or to choose what a narrower student keeps: a file of llama-imatrix, or of a run "
                      "(exports/importance.gguf)");
  command->add_option("--layers", options->layers, "keep only these layers, numbered anew, such as 0-4,10,28-29: a student to be trained (safetensors and other merged folders); best:15 keeps so many, those that "
                      "change most what passes through them, of the rows that RUN trained on");
  const std::string narrower = "; those with the largest activations over the rows that RUN trained on, or by --importance (merged folders, as --layers)";
  command->add_option("--intermediate", options->widths.intermediate, "keep so many channels of every MLP" + narrower);
  command->add_option("--kv-heads", options->widths.kv_heads, "keep so many key-value heads of every layer, with their query heads" + narrower);
  command->add_option("--hidden", options->widths.hidden, "keep so many channels of the residual stream" + narrower);
  command->add_flag("--force", options->force, "replace an export that is there");
  command->callback([=, &line] { line.chosen = [=, &line] { return run(*options, line.json); }; });
}

}  // namespace graft
