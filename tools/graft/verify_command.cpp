// graft verify RUN ARTIFACT [--engine E]: the certificate of an artefact against what the run trained; exit code 1 past the threshold.
#include "checkpoints/codecs/gguf_types.h"
#include "checkpoints/gguf_file.h"
#include "checkpoints/strict_json.h"
#include "kernels/common/error.h"
#include "tools/graft/commands.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/report/log_file.h"
#include "trainer/verify/certificate.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string run, artefact, engine = "graft", cache_type = "F16";
  double max_mean_kl = -1;
  std::optional<double> min_share_of_gain;
};

std::string format_of(const fs::path& artefact) {
  if (fs::exists(artefact / "adapter_config.json")) return "peft";
  if (fs::exists(artefact / "config.json")) {
    const auto config = read_strict_json(artefact / "config.json", "the configuration");
    const auto quantization = config.is_object() ? config.value("quantization_config", nlohmann::ordered_json()) : nlohmann::ordered_json();
    if (!quantization.is_object()) return "safetensors";
    const auto text = [&](const char* key) { return quantization.contains(key) && quantization[key].is_string() ? quantization[key].get<std::string>() : std::string(); };
    return text("format").empty() ? text("quant_method") : fmt::format("{}:{}", text("quant_method"), text("format"));
  }
  if (artefact.extension() == ".gguf") {
    const GgufFile file(artefact);
    if (file.get_string("general.type").value_or("model") == "adapter") return "gguf-lora";
    const auto form = gguf_format_of_file_type(file.get_int("general.file_type").value_or(-1));
    return form ? fmt::format("gguf:{}", gguf_format_name(*form)) : "gguf";
  }
  fail("verify", "expected a GGUF file, a merged model directory or a PEFT folder, got {}", artefact.string());
}

int run(const CommandLine& line, const Options& options) {
  const auto files = find_model(options.run);
  if (!files.run) fail("verify", "expected a run folder as RUN, got {} — name the folder that train wrote", options.run);
  if (!fs::exists(options.artefact)) fail("verify", "expected an artefact to exist, got {}", options.artefact);
  PrepareOptions prepare;
  prepare.log = [](const std::string& text) { log().detail(text); };
  auto prepared = prepare_run(load_recipe(*files.run / "recipe.yaml", {}), prepare);
  const auto manifest = read_manifest(*files.run / "manifest.json");
  for (size_t i = 0; i < manifest.base.size(); ++i) {
    const auto now = manifest_file(fs::is_directory(prepared.files.base) ? prepared.files.base / manifest.base[i].name : prepared.files.base);
    if (now.sha256 != manifest.base[i].sha256) {
      fail("verify", "expected the base that the run was trained on ({}), got another file — restore it", manifest.base[i].name);
    }
  }
  copy_adapter(*prepared.adapters, *files.adapter);
  prepared.adapters_changed();
  TrainedReference reference(prepared);
  CertificateRequest request;
  request.artefact = {options.artefact, format_of(options.artefact), prepared.files.base};
  request.engine = options.engine;
  request.cache_type = options.cache_type;
  request.max_mean_kl = options.max_mean_kl >= 0 ? options.max_mean_kl : options.engine == "graft" ? 0.002 : 0.01;
  request.min_share_of_gain = options.min_share_of_gain;
  const auto certificate = make_certificate(reference, request);
  if (line.json) {
    log().result(certificate.dump());
  } else {
    log().result(certificate.dump(2) + "\n" + certificate_summary(certificate));
  }
  return certificate["passed"].get<bool>() ? 0 : 1;
}

}  // namespace

void add_verify_command(CommandLine& line) {
  auto* command = line.add("verify", "compare an exported artefact with what a run trained; exit code 1 past the threshold");
  auto options = std::make_shared<Options>();
  command->add_option("RUN", options->run, "run folder")->required();
  command->add_option("ARTIFACT", options->artefact, "GGUF file, GGUF LoRA, merged model directory or PEFT folder")->required();
  command->add_option("--engine", options->engine, "who reads the artefact: graft, llama.cpp or transformers (the latter two start a Python process)")
      ->check(CLI::IsMember({"graft", "llama.cpp", "transformers"}))
      ->capture_default_str();
  command->add_option("--max-mean-kl", options->max_mean_kl, "threshold; default 0.002, with an engine 0.01");
  command->add_option("--min-share-of-gain", options->min_share_of_gain, "threshold: of what training gained, by loss and by task score; default none");
  command->add_option("--cache-type", options->cache_type, "llama.cpp's key-value cache: F16 or F32")->check(CLI::IsMember({"F16", "F32"}))->capture_default_str();
  command->callback([=, &line] {
    line.chosen = [=, &line] {
      return run(line, *options);
    };
  });
}

}  // namespace graft
