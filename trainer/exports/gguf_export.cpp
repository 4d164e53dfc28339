#include "trainer/exports/gguf_export.h"

#include <algorithm>
#include <cstdio>

#include "checkpoints/atomic_file.h"
#include "checkpoints/gguf_writer.h"
#include "kernels/common/error.h"
#include "trainer/exports/merged_weights.h"
#include "trainer/exports/model_card.h"
#include "trainer/exports/ollama_modelfile.h"
#include "trainer/exports/output_place.h"
#include "trainer/models/families/family.h"

namespace graft {
namespace {

constexpr const char* kTemplateKey = "tokenizer.chat_template";

// Keys that described the base's file and not the model.
bool describes_the_old_file(const std::string& key) {
  return key == "general.file_type" || key == "general.quantization_version" || key == "general.alignment" || key.starts_with("split.") ||
         key.starts_with("quantize.");
}

std::vector<GgufEntry> metadata_of_directory(const ExportSource& source, ExportResult& result) {
  std::vector<GgufEntry> metadata = {gguf_string("general.architecture", family_of_model_type(source.spec->family).gguf_architecture),
                                     gguf_string("general.type", "model"), gguf_string("general.name", source.base_name)};
  if (source.base_licence != "unknown") metadata.push_back(gguf_string("general.license", source.base_licence));
  for (auto& entry : gguf_hyperparameters(*source.spec)) metadata.push_back(std::move(entry));
  if (!source.tokenizer) {
    metadata.push_back(gguf_string("tokenizer.ggml.model", "none"));
    result.notes.push_back("the base has no tokenizer, so the file has none: it reads token ids only");
    return metadata;
  }
  for (auto& entry : source.tokenizer->to_gguf_metadata(source.spec->vocab_size)) metadata.push_back(std::move(entry));
  for (const auto& difference : source.tokenizer->gguf_differences()) {
    result.notes.push_back("llama.cpp cuts some texts into other tokens than the tokenizer that was trained with: " + difference);
  }
  return metadata;
}

std::vector<GgufEntry> metadata_of(const ExportSource& source, GgufFormat format, ExportResult& result) {
  std::vector<GgufEntry> metadata;
  if (source.is_gguf()) {
    metadata = dynamic_cast<const GgufFile&>(source.tensors->opened()).metadata();
    std::erase_if(metadata, [](const GgufEntry& entry) { return describes_the_old_file(entry.key); });
  } else {
    metadata = metadata_of_directory(source, result);
  }
  if (source.chat_template) {
    std::erase_if(metadata, [](const GgufEntry& entry) { return entry.key == kTemplateKey; });
    metadata.push_back(gguf_string(kTemplateKey, source.chat_template->source()));
  } else if (std::none_of(metadata.begin(), metadata.end(), [](const GgufEntry& entry) { return entry.key == kTemplateKey; })) {
    result.notes.push_back("the file holds no chat template: llama.cpp then writes conversations in a form of its own choice");
  }
  metadata.push_back(gguf_u32("general.file_type", gguf_file_type(format)));
  metadata.push_back(gguf_u32("general.quantization_version", 2));
  if (source.importance) {   // as llama-quantize writes them
    if (!source.importance->datasets.empty()) metadata.push_back(gguf_string("quantize.imatrix.dataset", source.importance->datasets.front()));
    metadata.push_back(gguf_u32("quantize.imatrix.entries_count", static_cast<uint32_t>(source.importance->entries.size())));
    metadata.push_back(gguf_u32("quantize.imatrix.chunks_count", source.importance->chunk_count));
  }
  append_facts(metadata, source);
  return metadata;
}

// The number, or the first of the numbers, at a key.
int64_t number_at(const std::vector<GgufEntry>& metadata, const std::string& key, int64_t otherwise) {
  const auto* entry = find_entry(metadata, key);
  if (!entry) return otherwise;
  if (const auto* value = std::get_if<uint64_t>(&entry->value)) return static_cast<int64_t>(*value);
  if (const auto* value = std::get_if<int64_t>(&entry->value)) return *value;
  if (const auto* values = std::get_if<std::vector<uint64_t>>(&entry->value); values && !values->empty()) return static_cast<int64_t>(values->front());
  if (const auto* values = std::get_if<std::vector<int64_t>>(&entry->value); values && !values->empty()) return values->front();
  return otherwise;
}

// From the metadata, as llama.cpp's quantiser reads them.
GgufModelFacts facts_of(const ExportSource& source, const MergedWeights& weights) {
  GgufModelFacts facts;
  std::vector<GgufEntry> metadata;
  if (source.is_gguf()) {
    const auto& file = dynamic_cast<const GgufFile&>(source.tensors->opened());
    facts.architecture = file.need_string("general.architecture");
    metadata = file.metadata();
  } else {
    facts.architecture = family_of_model_type(source.spec->family).gguf_architecture;
    metadata = gguf_hyperparameters(*source.spec);
  }
  const auto number = [&](const char* key, int64_t otherwise) { return number_at(metadata, facts.architecture + "." + key, otherwise); };
  facts.num_layers = static_cast<int>(number("block_count", static_cast<int64_t>(source.spec->layers.size())));
  facts.num_experts = static_cast<int>(number("expert_count", 0));
  const int64_t heads = number("attention.head_count", 1), groups = number("attention.head_count_kv", heads);
  facts.heads_per_group = groups > 0 ? static_cast<int>(heads / groups) : 0;
  facts.has_importance = source.importance != nullptr;
  facts.tied_embeddings = true;
  for (const auto& tensor : weights.tensors()) {
    const auto& name = weights.name(tensor);
    if (name == "output.weight") facts.tied_embeddings = false;
    if (int layer = 0; gguf_holds_values(name) && std::sscanf(name.c_str(), "blk.%d.", &layer) == 1) facts.value_layers.push_back(layer);
  }
  std::sort(facts.value_layers.begin(), facts.value_layers.end());
  return facts;
}

// What the form would have given the tensor if its columns fitted every block.
std::string fallback_of(GgufFormat format, const ExportedTensor& tensor, const GgufModelFacts& facts) {
  constexpr int64_t kLargestBlock = 256;
  auto fitting = tensor.shape;
  fitting.back() = (fitting.back() + kLargestBlock - 1) / kLargestBlock * kLargestBlock;
  const auto wanted = gguf_type_for(format, tensor.name, fitting, facts);
  if (wanted == tensor.type) return {};
  return fmt::format("{} wants columns in {}s, got {}", info(wanted).name, info(wanted).block_elements, tensor.shape.back());
}

ExportedTensor describe(const MergedWeights& weights, const MergedTensor& merged, GgufFormat format, const GgufModelFacts& facts) {
  ExportedTensor tensor{weights.name(merged), weights.shape(merged), merged.stored_type()};
  tensor.type = gguf_type_for(format, tensor.name, tensor.shape, facts);
  tensor.adapted = merged.adapted();
  tensor.copied = MergedWeights::keeps_bytes(merged, tensor.type);
  tensor.fallback = fallback_of(format, tensor, facts);
  return tensor;
}

// Empty where there is none. Of a tensor that is one of ours but several matrices in GGUF (heads of latent attention) it is not used.
std::vector<float> importance_of(const ExportSource& source, const MergedWeights& weights, const MergedTensor& merged) {
  if (!source.importance || (weights.shape(merged).size() == 3 && merged.parts.size() == 1)) return {};
  return source.importance->importance_of(weights.name(merged));
}

void note_tensors_without_importance(const ImportanceMatrix& importance, ExportResult& result) {
  int num_weighted = 0, num_other = 0;
  std::string first;
  for (const auto& tensor : result.tensors) {
    if (!info(tensor.type).quantized || tensor.type == TensorType::kQ8_0) continue;
    const bool weighted = importance.entries.contains(tensor.name);
    ++(weighted ? num_weighted : num_other);
    if (!weighted && first.empty()) first = tensor.name;
  }
  if (num_weighted == 0 && num_other > 0) fail("exports", "expected an importance matrix of this model's tensors ({}, ...), got none of them — make it with this model", first);
  if (num_other > 0) result.notes.push_back(fmt::format("{} quantised tensors have no entry in the importance matrix ({}{})", num_other, first, num_other > 1 ? ", ..." : ""));
}

// An older one of another template must not stay.
void add_modelfile(const ExportSource& source, const std::vector<GgufEntry>& metadata, const std::filesystem::path& model, ExportResult& result) {
  const auto path = std::filesystem::path(model).replace_extension(".Modelfile");
  const auto modelfile = ollama_modelfile(source, metadata, model);
  std::filesystem::remove(path);
  if (!modelfile.problem.empty()) result.notes.push_back(fmt::format("no Modelfile for Ollama, whose template language cannot say what this chat template does: {}", modelfile.problem));
  if (modelfile.text.empty()) return;
  write_file_atomic(path, modelfile.text);
  result.files.insert(result.files.begin(), path);
  result.serve.push_back(fmt::format("ollama create {} -f {}", shell_word(model.stem()), shell_word(path)));
}

}  // namespace

std::vector<ExportedTensor> gguf_tensors(const ExportSource& source, GgufFormat format) {
  const MergedWeights weights(source, NameColumn::kGguf);
  const auto facts = facts_of(source, weights);
  std::vector<ExportedTensor> tensors;
  for (const auto& [name, values] : source.rope_factors) tensors.push_back({name, {static_cast<int64_t>(values.size())}});
  for (const auto& merged : weights.tensors()) tensors.push_back(describe(weights, merged, format, facts));
  return tensors;
}

void write_gguf(const ExportSource& source, const ExportFormat& format, const std::filesystem::path& path, ExportResult& result) {
  result.tensors = gguf_tensors(source, format.gguf);
  std::vector<TensorDeclaration> declarations;
  for (const auto& tensor : result.tensors) declarations.push_back({tensor.name, tensor.type, tensor.shape});
  const auto metadata = metadata_of(source, format.gguf, result);
  GgufWriter writer(path, metadata, declarations);
  const auto total = static_cast<int64_t>(result.tensors.size());
  MergedWeights weights(source, NameColumn::kGguf);
  if (source.importance) note_tensors_without_importance(*source.importance, result);
  size_t next = 0;
  for (const auto& [name, values] : source.rope_factors) writer.write(result.tensors[next++].name, std::as_bytes(std::span(values)));
  for (const auto& merged : weights.tensors()) {
    writer.write(result.tensors[next].name, weights.bytes(merged, result.tensors[next].type, importance_of(source, weights, merged)));
    source.report(static_cast<int64_t>(++next), total);
  }
  writer.finish();
  result.path = path;
  result.files = {path};
  result.serve = {fmt::format("llama-server -m {} -c {}", shell_word(path), std::min<int64_t>(2048, source.spec->max_positions))};
  add_modelfile(source, metadata, path, result);
}

}  // namespace graft
