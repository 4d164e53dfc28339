#include "trainer/exports/model_card.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "checkpoints/gguf_writer.h"

namespace graft {
namespace {

// A string as YAML reads it: JSON is YAML.
std::string yaml_text(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string table_cell(const std::string& text) {
  std::string cell;
  for (const char c : text) cell += c == '|' ? std::string("\\|") : c == '\n' ? std::string(" ") : std::string(1, c);
  return cell;
}

}  // namespace

ExportFacts export_facts(const Manifest& manifest) {
  ExportFacts facts = {{"program", "graft " + manifest.program_version}, {"base", manifest.base_name}};
  const auto add = [&](const std::string& key, const std::string& value) {
    if (!value.empty()) facts.emplace_back(key, value);
  };
  for (const auto& file : manifest.base) add(manifest.base.size() == 1 ? "base_sha256" : "base_sha256." + file.name, file.sha256);
  add("base_licence", manifest.base_licence);
  add("teacher", manifest.teacher_name);
  for (const auto& file : manifest.teacher) add(manifest.teacher.size() == 1 ? "teacher_sha256" : "teacher_sha256." + file.name, file.sha256);
  add("teacher_licence", manifest.teacher_licence);
  add("tokenizer_sha256", manifest.tokenizer_sha256);
  add("template_sha256", manifest.template_sha256);
  add("template_date", manifest.template_date);
  add("rows_sha256", manifest.rows_sha256);
  add("recipe_sha256", manifest.recipe_sha256);
  add("seed", std::to_string(manifest.seed));
  add("compute", manifest.compute);
  add("started", manifest.started);
  return facts;
}

std::string model_card(const ExportSource& source, const ExportFormat& format, const ExportResult& result) {
  const bool merged = format.is_merged(), adapted = !source.updates.empty();
  std::string card = "---\n";
  if (source.base_licence != "unknown" && !source.base_licence.empty()) card += fmt::format("license: {}\n", yaml_text(source.base_licence));
  card += fmt::format("base_model: {}\n", yaml_text(source.base_name));
  card += fmt::format("library_name: {}\ntags: [graft{}]\n---\n\n", merged ? "transformers" : "peft", adapted ? ", lora" : "");
  card += fmt::format("# {}{}\n\n", source.base_name, adapted ? ", fine-tuned" : "");
  if (merged && adapted) {
    card += fmt::format("The base with its LoRA adapter merged in, written by graft as `{}` ({}).\n", format.name, describe_types(result.tensors));
  } else if (merged) {
    card += fmt::format("The base, converted by graft to `{}` ({}).\n", format.name, describe_types(result.tensors));
  } else {
    card += "A LoRA adapter, float32, written by graft. It belongs to exactly the base whose hash stands below.\n";
  }
  for (const auto& note : result.notes) card += fmt::format("\n{}\n", note);
  if (source.facts.empty()) return card;
  card += "\n| made from | |\n|---|---|\n";
  for (const auto& [key, value] : source.facts) card += fmt::format("| {} | {} |\n", table_cell(key), table_cell(value));
  return card;
}

void append_facts(std::vector<GgufEntry>& metadata, const ExportSource& source) {
  // A base that is itself an export keeps none of its own facts: they told of another run.
  std::erase_if(metadata, [](const GgufEntry& entry) { return entry.key.starts_with("graft."); });
  for (const auto& [key, value] : source.facts) metadata.push_back(gguf_string("graft." + key, value));
}

}  // namespace graft
