#include "trainer/models/model_files.h"

#include <fstream>
#include <set>

#include <nlohmann/json.hpp>

#include "checkpoints/gguf_file.h"
#include "checkpoints/mxfp4_tensors.h"
#include "checkpoints/quantized_base.h"
#include "checkpoints/quantized_tensors.h"
#include "kernels/common/error.h"
#include "trainer/models/families/family.h"
#include "trainer/models/families/wrapped_text.h"
#include "trainer/recipe/recipe.h"

namespace graft {

namespace fs = std::filesystem;

ModelFiles find_model(const fs::path& model) {
  ModelFiles files;
  if (!fs::exists(model)) {
    fail("models", "expected a model directory, a .gguf file or a run folder, got {}, which does not exist — check the path", model.string());
  }
  if (fs::is_directory(model) && fs::exists(model / "manifest.json") && !fs::exists(model / "config.json")) {
    if (!fs::exists(model / "adapter" / "adapter_config.json")) {
      fail("models", "expected a finished run folder with adapter/adapter_config.json, got {} — train it to the end, or resume it", model.string());
    }
    const auto recipe = load_recipe(model / "recipe.yaml", {});
    files.base = recipe.model.base;
    files.quantize_base = recipe.model.quantize_base;
    files.adapter = model / "adapter";
    files.run = model;
    return files;
  }
  if (!fs::is_directory(model) && model.extension() != ".gguf") {
    fail("models", "expected a model directory, a .gguf file or a run folder, got the file {} — name the folder that holds config.json", model.string());
  }
  files.base = model;
  return files;
}

namespace {

// The linears of the layers, where rows of a file are rows of ours.
std::shared_ptr<const TensorSource> quantized_as(const std::string& form, std::shared_ptr<const TensorSource> source, const WeightMap& map, NameColumn column) {
  if (form == "none") return source;
  std::set<std::string, std::less<>> names;
  for (const auto& rule : map.rules) {
    if (!is_linear_weight(rule)) continue;
    if (!rule.form(column).transposed) names.insert(rule.name(column));
    if (column == NameColumn::kHub && !rule.hub_stacked.empty() && !rule.hub_stacked_form.transposed) names.insert(rule.hub_stacked);
  }
  const auto original = [&](const std::string& name) {   // as the map knows it, whatever wrapper it is in
    for (const auto& [own, other] : map.hub_aliases)
      if (column == NameColumn::kHub && name.starts_with(other)) return own + name.substr(other.size());
    return name;
  };
  return quantize_tensors(std::move(source), quantized_base_type(form).value(), [&](const StoredTensor& tensor) { return names.contains(tensor.name) || names.contains(original(tensor.name)); });
}

}  // namespace

std::unique_ptr<Decoder> load_decoder(const fs::path& base, ComputeType compute, const std::string& quantize_base) {
  if (base.extension() == ".gguf") {
    auto file = std::make_shared<GgufFile>(base);
    const auto& family = family_of_gguf(*file);
    auto spec = family.spec_from_gguf(*file);
    check_spec(spec);
    auto map = family.weight_map(spec);
    auto source = quantized_as(quantize_base, file, map, NameColumn::kGguf);
    return std::make_unique<Decoder>(std::move(spec), std::move(map), NameColumn::kGguf, std::move(source), compute);
  }
  const auto path = base / "config.json";
  std::ifstream in(path);
  if (!in) fail("models", "expected {} to exist and be readable — is {} a model directory?", path.string(), base.string());
  auto config = nlohmann::ordered_json::parse(in, nullptr, false);
  if (config.is_discarded() || !config.is_object()) fail("models", "expected a JSON object in {}, got something else — the file is damaged", path.string());
  if (!config.contains("model_type") || !config["model_type"].is_string()) {
    fail("models", "expected model_type in {}, got none — an architecture is never guessed", path.string());
  }
  const auto quantization = config.value("quantization_config", nlohmann::ordered_json());
  const bool mxfp4 = quantization.is_object() && quantization.value("quant_method", nlohmann::ordered_json()) == "mxfp4";
  const bool quantized = !quantization.is_null() && !mxfp4;
  config.erase("quantization_config");
  const bool wrapped = wraps_text(config);
  if (wrapped) config = wrapped_text_config(config);
  const auto& family = family_of_model_type(config["model_type"].get<std::string>());
  auto spec = family.spec_from_config(config);
  check_spec(spec);
  auto map = family.weight_map(spec);
  if (wrapped) add_wrapper_names(map);
  std::shared_ptr<const TensorSource> source = open_tensors(base);
  if (mxfp4) source = join_mxfp4(std::move(source));
  if (quantized) source = join_quantized(std::move(source), hub_quantization(quantization, path));
  source = quantized_as(quantize_base, std::move(source), map, NameColumn::kHub);
  return std::make_unique<Decoder>(std::move(spec), std::move(map), NameColumn::kHub, std::move(source), compute);
}

std::vector<std::string> declared_licences(const fs::path& base) {
  std::vector<std::string> declared;
  if (base.extension() == ".gguf") {
    if (const auto licence = GgufFile(base).get_string("general.license")) declared.push_back(*licence);
    return declared;
  }
  constexpr size_t kBeginning = 400;   // holds the title, or all of the MIT licence's first sentence
  for (const char* name : {"LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE"}) {
    std::ifstream file(base / name);
    std::string beginning;
    for (std::string word; beginning.size() < kBeginning && file >> word;) beginning += (beginning.empty() ? "" : " ") + word;
    const auto text = beginning.find_first_not_of(" #");
    if (text != std::string::npos) declared.push_back(beginning.substr(text, kBeginning));
  }
  std::ifstream readme(base / "README.md");
  std::string card, name;
  for (std::string line; std::getline(readme, line);) {
    const auto value_from = [&](size_t colon) {   // YAML may quote it
      const auto value = line.substr(std::min(line.size(), line.find_first_not_of(" :", colon)));
      const bool quoted = value.size() >= 2 && (value.front() == '"' || value.front() == '\'') && value.back() == value.front();
      return quoted ? value.substr(1, value.size() - 2) : value;
    };
    if (line.starts_with("license:")) card = value_from(7);
    if (line.starts_with("license_name:")) name = value_from(12);
  }
  if (card == "other" && !name.empty()) card = name;
  if (!card.empty()) declared.push_back(card);
  return declared;
}

std::string declared_licence(const fs::path& base) {
  const auto declared = declared_licences(base);
  return declared.empty() ? "unknown" : declared[0].substr(0, 120);
}

}  // namespace graft
