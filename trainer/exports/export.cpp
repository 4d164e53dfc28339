#include "trainer/exports/export.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "checkpoints/hash.h"
#include "kernels/common/error.h"
#include "trainer/exports/export_source.h"
#include "trainer/exports/gguf_export.h"
#include "trainer/exports/gguf_lora_export.h"
#include "trainer/exports/hub_files.h"
#include "trainer/exports/kept_layers.h"
#include "trainer/exports/kept_widths.h"
#include "trainer/exports/low_rank_updates.h"
#include "trainer/exports/mxfp4_export.h"
#include "trainer/exports/output_place.h"
#include "trainer/exports/peft_export.h"
#include "trainer/exports/quantized_hub_export.h"
#include "trainer/exports/safetensors_export.h"
#include "trainer/models/families/family.h"
#include "trainer/models/model_files.h"
#include "trainer/models/rope_tables.h"

namespace graft {

namespace fs = std::filesystem;
using Kind = ExportFormat::Kind;

namespace {

// What llama.cpp divides each rotary frequency by.
std::vector<float> rope_factors_of(const RopeSpec& rope) {
  if (!rope.frequency_divisors.empty()) return rope.frequency_divisors;
  if (rope.scaling != RopeSpec::Scaling::kLlama3) return {};
  auto plain = rope;
  plain.scaling = RopeSpec::Scaling::kNone;
  const auto scaled = rope_frequencies(rope), unscaled = rope_frequencies(plain);
  std::vector<float> factors(scaled.size());
  for (size_t i = 0; i < scaled.size(); ++i) factors[i] = unscaled[i] / scaled[i];
  return factors;
}

// A GGUF file holds the divisors that llama3 scaling comes to; config.json wants its parameters. Those of Llama 3.1 and 3.2 are tried, and taken
// where they give the same divisors.
bool name_rope_scaling(RopeSpec& rope) {
  if (rope.frequency_divisors.empty()) return true;
  auto named = rope;
  named.frequency_divisors.clear();
  named.scaling = RopeSpec::Scaling::kLlama3;
  named.factor = *std::max_element(rope.frequency_divisors.begin(), rope.frequency_divisors.end());
  named.low_frequency_factor = 1;
  named.high_frequency_factor = 4;
  named.original_max_positions = 8192;
  const auto divisors = rope_factors_of(named);
  const bool same = std::equal(divisors.begin(), divisors.end(), rope.frequency_divisors.begin(), rope.frequency_divisors.end(),
                               [](float x, float y) { return std::abs(x - y) <= 1e-5f * y; });
  if (same) rope = named;
  return same;
}

// The adapters' values in host memory, and what the forms read.
struct Prepared {
  at::Tensor parameters;   // kept alive for source.updates
  DecoderSpec spec;        // and for source.spec: config.json and GGUF must be able to say it
  PartialModel kept;       // and for source.weights, where not all are
  std::vector<std::string> notes;
  ExportSource source;
};

void add_updates(Prepared& prepared, const ExportRequest& request) {
  if (!request.adapters) return;
  prepared.parameters = request.adapters->parameters.detach().cpu().contiguous();
  prepared.source.updates = low_rank_updates(*request.adapters, prepared.parameters.const_data_ptr<float>());
}

// What is said of a weight, said of what is left of it.
template <typename Value>
std::map<const WeightRule*, Value> moved(const std::map<const WeightRule*, Value>& of_rule, const PartialModel& kept) {
  std::map<const WeightRule*, Value> result;
  for (const auto& [rule, value] : of_rule) {
    const auto found = kept.rules.find(rule);
    if (found != kept.rules.end()) result[found->second] = value;
  }
  return result;
}

void take(Prepared& prepared, PartialModel kept) {
  auto& source = prepared.source;
  source.updates = moved(source.updates, kept);
  for (auto& [rule, update] : source.updates) update.rule = rule;
  source.cuts = moved(source.cuts, kept);
  prepared.spec = kept.spec;
  prepared.kept = std::move(kept);
  source.weights = &prepared.kept.weights;
}

// What the activations are of. llama-imatrix names data by their paths, which may be private.
std::string chosen_by(const ImportanceMatrix& activations) {
  std::vector<std::string> names;
  for (const auto& path : activations.datasets) names.push_back(fs::path(path).filename().string());
  const float tokens = activations.entries.begin()->second.counts.at(0);   // keep_widths found entries
  return fmt::format("mean squares of activations over {:.0f} tokens{}{}", tokens, names.empty() ? "" : " of ", fmt::join(names, ", "));
}

// kept.json: which of the base's; of layers that are left out nothing is said.
std::string kept_json(const std::string& base_name, const ExportRequest& request, const KeptWidths& widths) {
  nlohmann::ordered_json json = {{"base", base_name}};
  const auto add = [&](const char* key, const std::vector<std::vector<int64_t>>& of_layers) {
    if (of_layers.empty()) return;
    auto left = request.layers.empty() ? of_layers : std::vector<std::vector<int64_t>>();
    for (const auto layer : request.layers) left.push_back(of_layers[static_cast<size_t>(layer)]);
    json[key] = left;
  };
  if (request.widths.any()) json["chosen_by"] = chosen_by(*request.activations);
  if (!request.layers.empty()) json["layers"] = request.layers;
  if (!request.layers_chosen_by.empty()) json["layers_chosen_by"] = request.layers_chosen_by;
  if (!widths.hidden.empty()) json["hidden"] = widths.hidden;
  add("kv_heads", widths.kv_heads);
  add("intermediate", widths.intermediate);
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

void cut(Prepared& prepared, const ExportRequest& request, const ExportFormat& format) {
  if (request.layers.empty() && !request.widths.any()) return;
  if (!format.is_merged() || !format.is_hub()) {
    fail("exports", "expected a merged form in Hugging Face layout with layers or channels left out, got {} — export safetensors, and that again to other forms", format.name);
  }
  if (request.products || request.importance) {
    fail("exports", "expected plain rounding with layers or channels left out, got {} by activations of the whole model — export safetensors, and that again", format.name);
  }
  auto& source = prepared.source;
  source.base_layers = static_cast<int64_t>(prepared.spec.layers.size());
  KeptWidths widths;
  if (request.widths.any()) {
    TORCH_INTERNAL_ASSERT(request.activations, "widths are chosen by activations");
    widths = keep_widths(prepared.spec, *source.weights, request.widths, *request.activations);
    prepared.notes.push_back(fmt::format("kept {}, by {}; which ones: kept.json", widths.describe(prepared.spec), chosen_by(*request.activations)));
    take(prepared, std::move(widths.model));
    source.cuts = std::move(widths.cuts);
  }
  if (!request.layers.empty()) {
    take(prepared, keep_layers(prepared.spec, *source.weights, request.layers));
    source.kept_layers = request.layers;
    const auto by = request.layers_chosen_by.empty() ? "" : ", by " + request.layers_chosen_by;
    prepared.notes.push_back(fmt::format("{} of the base's {} layers{}: {}", request.layers.size(), source.base_layers, by, fmt::join(request.layers, ", ")));
  }
  source.kept = kept_json(source.base_name, request, widths);
  hub_config(source, TensorType::kF32);   // refuses what config.json cannot say, before anything is written
}

std::unique_ptr<Prepared> prepare(const ExportRequest& request, const ExportFormat& format) {
  if (request.importance && !format.takes_importance())
    fail("exports", "expected an importance matrix with a form of fewer than 8 bits that searches for its scales, got one with {} — leave it out, or choose another form", format.name);
  if (request.products) check_takes_feedback(format);
  if (request.adapters && request.options.kind == "full" && !format.is_merged()) {
    fail("exports", "expected a merged form of a model whose matrices were trained whole, got {} — take safetensors or a gguf form", format.name);
  }
  auto holder = std::make_unique<Prepared>();   // source points into it
  auto& prepared = *holder;
  auto& source = prepared.source;
  const auto& decoder = *request.decoder;
  source.base = request.base;
  source.base_name = last_name_of(request.base);
  source.base_licence = declared_licence(request.base);
  prepared.spec = decoder.spec();
  for (auto& rope : prepared.spec.ropes) {
    if (auto factors = rope_factors_of(rope); !factors.empty()) source.rope_factors.push_back({"rope_freqs.weight", std::move(factors)});
    if (!rope.long_factors.empty()) {
      source.rope_factors.push_back({"rope_factors_long.weight", {rope.long_factors.begin(), rope.long_factors.end()}});
      source.rope_factors.push_back({"rope_factors_short.weight", {rope.short_factors.begin(), rope.short_factors.end()}});
    }
    if (name_rope_scaling(rope) || !format.is_hub()) continue;
    fail("exports", "expected rope_freqs.weight to be the llama3 scaling of Llama 3.1 or 3.2, which config.json can name, got other divisors ({}) — export gguf, or "
         "fine-tune from the Hugging Face directory of this model", source.base_name);
  }
  source.spec = &prepared.spec;
  source.column = decoder.column();
  source.tensors = &decoder.source();
  source.weights = &decoder.weights();
  source.tokenizer = request.tokenizer;
  source.chat_template = request.chat_template;
  source.facts = request.facts;
  source.importance = request.importance;
  source.products = request.products;
  source.progress = request.progress;
  add_updates(prepared, request);
  cut(prepared, request, format);
  return holder;
}

// What merging costs the fine-tune, or that it was trained through this very rounding.
void warn_of_rounding(const ExportRequest& request, ExportResult& result) {
  if (!request.adapters || request.options.quantization_aware != request.format) result.warning = own_grid_warning(result.tensors);
  else result.notes.push_back(fmt::format("trained through the rounding to {}: the adapted tensors are those that training computed with", request.format));
}

void count_fallbacks(ExportResult& result) {
  std::map<std::string, int> counts;
  for (const auto& tensor : result.tensors) {
    if (!tensor.fallback.empty()) ++counts[fmt::format("{}, so they are {}", tensor.fallback, info(tensor.type).name)];
  }
  for (const auto& [reason, count] : counts) result.notes.push_back(fmt::format("{} tensors in a fallback form: {}", count, reason));
}

}  // namespace

void check_base(const fs::path& base, const std::vector<ManifestFile>& expected) {
  std::vector<std::string> differences;
  for (const auto& file : expected) {
    const auto path = fs::is_directory(base) ? base / file.name : expected.size() == 1 ? base : base.parent_path() / file.name;
    if (!fs::exists(path)) {
      differences.push_back(fmt::format("{} is missing", file.name));
    } else if (fs::file_size(path) != file.bytes) {
      differences.push_back(fmt::format("{} has {} bytes, expected {}", path.filename().string(), fs::file_size(path), file.bytes));
    } else if (const auto found = sha256_file(path); found != file.sha256) {
      differences.push_back(fmt::format("{} has SHA-256 {}, expected {}", path.filename().string(), found, file.sha256));
    }
  }
  if (differences.empty()) return;
  fail("exports", "expected the base that the adapter was trained on, got another: {} ({}) — an adapter fits no other base; take the original files",
       fmt::join(differences, "; "), base.string());
}

ExportResult plan_export(const ExportRequest& request) {
  const auto format = parse_export_format(request.format);
  const auto prepared = prepare(request, format);
  const auto& source = prepared->source;
  ExportResult result;
  result.format = format.name;
  switch (format.kind) {
    case Kind::kPeft:
      if (request.adapters) result.tensors = peft_tensors(*request.adapters, request.options, format);
      break;
    case Kind::kSafetensors:
      if (source.is_gguf()) config_from_spec(prepared->spec);   // refuses what config.json cannot say
      result.tensors = safetensors_tensors(source, format.safetensors);
      break;
    case Kind::kQuantizedHub:
      if (source.is_gguf()) config_from_spec(prepared->spec);
      result.tensors = quantized_hub_tensors(source, format);
      warn_of_rounding(request, result);
      break;
    case Kind::kMxfp4:
      if (source.is_gguf()) config_from_spec(prepared->spec);
      result.tensors = mxfp4_tensors(source, format);
      warn_of_rounding(request, result);
      break;
    case Kind::kGguf:
      if (!source.is_gguf()) gguf_hyperparameters(prepared->spec);   // refuses what llama.cpp computes otherwise
      result.tensors = gguf_tensors(source, format.gguf);
      warn_of_rounding(request, result);
      break;
    case Kind::kGgufLora:
      result.tensors = gguf_lora_tensors(source);
      break;
  }
  for (const auto& tensor : result.tensors) result.bytes += static_cast<uint64_t>(bytes_of(tensor.type, tensor.shape).value());
  count_fallbacks(result);
  return result;
}

ExportResult export_model(const ExportRequest& request) {
  const auto format = parse_export_format(request.format);
  const auto out = check_output(request.out, request.base, format.is_folder(), request.replace);
  check_base(request.base, request.expected_base);
  const auto prepared = prepare(request, format);
  const auto& source = prepared->source;
  ExportResult result;
  result.format = format.name;
  result.notes = prepared->notes;
  switch (format.kind) {
    case Kind::kPeft:
      write_peft(source, request.adapters, request.options, format, out, result);
      break;
    case Kind::kSafetensors:
      write_safetensors(source, format, out, result);
      break;
    case Kind::kQuantizedHub:
      write_quantized_hub(source, format, out, result);
      warn_of_rounding(request, result);
      break;
    case Kind::kMxfp4:
      write_mxfp4(source, format, out, result);
      warn_of_rounding(request, result);
      break;
    case Kind::kGguf:
      write_gguf(source, format, out, result);
      warn_of_rounding(request, result);
      break;
    case Kind::kGgufLora:
      write_gguf_lora(source, format, out, result);
      break;
  }
  result.bytes = bytes_in(result.files);
  count_fallbacks(result);
  return result;
}

}  // namespace graft
