// Keys of a recipe that need or exclude each other.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <set>

#include "data/teacher_signals/server_address.h"
#include "trainer/recipe/recipe_schema.h"

namespace graft {
namespace {

// The deepest written value on the way to `path`: where an error about it points.
const YamlValue& written(const YamlValue& root, std::string_view path) {
  const YamlValue* value = &root;
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    const std::string_view key = path.substr(begin, end - begin);
    const YamlValue* next = nullptr;
    if (value->kind == YamlValue::Kind::kMap) next = value->find(key);
    if (value->kind == YamlValue::Kind::kList) {
      size_t position = value->items.size();
      std::from_chars(key.data(), key.data() + key.size(), position);
      if (position < value->items.size()) next = &value->items[position];
    }
    if (next == nullptr) break;
    value = next;
    begin = end + 1;
  }
  return *value;
}

std::string extension_of(const std::string& path) {
  std::string extension = std::filesystem::path(path).extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(), [](unsigned char c) { return std::tolower(c); });
  return extension;
}

void check_source(Reader& reader, const YamlValue& root, const std::string& path, const DataSource& source) {
  const auto problem = [&](const std::string& key, const std::string& text) {
    reader.problem(written(root, path + "." + key).place, text);
  };
  if (source.format.empty() || source.path.empty()) return;   // already a problem
  const auto refuses = [&](const char* key, bool given) {
    if (given) problem(key, fmt::format("expected no key '{}.{}' for format {}, got one — it would have no effect", path, key, source.format));
  };
  const bool labelled = source.format == "labelled", text = source.format == "text", messages = source.format == "messages", prompts = source.format == "prompts";
  const std::string extension = extension_of(source.path);
  const bool columns = extension == ".csv" || extension == ".tsv" || extension == ".parquet";
  if (!labelled) refuses("label", source.label.has_value());
  if (!labelled && !text && !prompts) refuses("text", source.text.has_value());
  if (text || messages) {
    refuses("prompt", source.prompt.has_value());
    refuses("completion", source.completion.has_value());
    refuses("system", source.system.has_value());
  }
  if (prompts) refuses("completion", source.completion.has_value());
  if (messages && columns) {
    problem("path", fmt::format("expected a .jsonl file for format messages, got '{}' — a table has no conversations; use completion", source.path));
  }
  const std::string column = "{" + source.text.value_or("text") + "}";
  if (labelled && source.prompt && source.prompt->find(column) == std::string::npos) {
    problem("prompt", fmt::format("expected {}.prompt to hold {}, got a prompt without the text — every row would look alike", path, column));
  }
}

// A teacher behind a server: where the rows go, by whose word, and with no key in the recipe. What stands in the recipe is not shown where it may be one.
void check_server(Reader& reader, const YamlValue& root, const Recipe& recipe) {
  const auto& teacher = recipe.teacher;
  const auto problem = [&](const std::string& key, const std::string& text) {
    const auto& place = written(root, key).place;
    reader.problem(place.override_text ? root.place : place, text);   // --set is shown with its value
  };
  if (!teacher.server) {
    const std::pair<const char*, bool> given[] = {{"server_model", teacher.server_model.has_value()}, {"key_env", teacher.key_env.has_value()}, {"licence", teacher.licence.has_value()},
                                                  {"allow_remote", teacher.allow_remote}, {"answer_seconds", teacher.answer_seconds != TeacherOptions().answer_seconds}};
    for (const auto& [key, is_given] : given) {
      if (is_given) problem(fmt::format("teacher.{}", key), fmt::format("expected no key 'teacher.{}' without teacher.server, got one — it would have no effect", key));
    }
    return;
  }
  const auto needs = [&](bool met, const std::string& key, const std::string& wanted, const std::string& got) {
    if (!met) problem("teacher." + key, fmt::format("expected teacher.{} {} with teacher.server, got {}", key, wanted, got));
  };
  const auto wrong = problem_of_server(*teacher.server);
  if (!wrong.empty()) problem("teacher.server", wrong + " (teacher.server)");
  needs(!wrong.empty() || server_address(*teacher.server).loopback || teacher.allow_remote, "allow_remote", "true for another machine than this (localhost, 127.0.0.1, [::1])",
        "false — the rows would go there");
  const auto is_name = [](const std::string& text) {
    return text.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == text.npos && !std::isdigit(static_cast<unsigned char>(text[0]));
  };
  needs(!teacher.key_env || is_name(*teacher.key_env), "key_env", "to be the name of an environment variable, in capitals,", "another text — the key itself stands in no file: export it under a name, and give the name");
  needs(teacher.licence.has_value(), "licence", "to name the licence of the server's model", "none — graft cannot read it there: for example apache-2.0");
  needs(teacher.model == "none", "model", "none", "a model too — take one of them out");
  needs(!teacher.adapter, "adapter", "null", "a folder — the server has its adapters");
  needs(!teacher.demonstration, "demonstration", "null", "a file — the server is shown the rows alone");
  needs(teacher.compute == TeacherOptions().compute, "compute", TeacherOptions().compute, teacher.compute + " — the server decides");
  needs(teacher.quantize_base == "none", "quantize_base", "none", teacher.quantize_base + " — the server decides");
  needs(teacher.cached(), "signal", "cached", teacher.signal + " — `graft teach` asks it, once for all runs");
  needs(teacher.entries == "top", "entries", "top", teacher.entries + " — a server gives its likeliest tokens");
  if (recipe.objective.temperature != 1) {
    problem("objective.temperature", fmt::format("expected objective.temperature 1 with teacher.server, got {:g} — a server gives probabilities of temperature 1", recipe.objective.temperature));
  }
}

// A teacher and an objective that learns from it.
void check_distillation(Reader& reader, const YamlValue& root, const Recipe& recipe) {
  const auto& objective = recipe.objective;
  const auto& teacher = recipe.teacher;
  const auto problem = [&](const std::string& key, const std::string& text) { reader.problem(written(root, key).place, text); };
  if (objective.on_policy_share > 0 && (!objective.distils() || teacher.signal != "online")) {
    problem("objective.on_policy.share", fmt::format("expected objective.on_policy.share 0 with objective.kind {} and teacher.signal {}, got {:g} — what the student will write is known "
                                                     "only while it learns: take objective.kind: distill and teacher.signal: online", objective.kind, teacher.signal, objective.on_policy_share));
  }
  if (objective.hidden_states_weight > 0 && (!objective.distils() || teacher.signal != "online" || objective.by_spans())) {
    problem("objective.hidden_states.weight", fmt::format("expected objective.hidden_states.weight 0 with {}, got {:g} — hidden states are those of a teacher beside the student that reads the same tokens: take "
                                                          "objective.kind: distill, teacher.signal: online and a divergence of tokens",
                                                          !objective.distils() ? "objective.kind " + objective.kind : objective.by_spans() ? "objective.divergence spans" : "teacher.signal " + teacher.signal,
                                                          objective.hidden_states_weight));
  }
  if (!objective.distils()) {
    if (teacher.model != "none") problem("teacher.model", fmt::format("expected teacher.model none with objective.kind {}, got a teacher — set objective.kind: distill", objective.kind));
    if (teacher.server) problem("teacher.server", fmt::format("expected no teacher.server with objective.kind {}, got one — set objective.kind: distill", objective.kind));
    return;
  }
  check_server(reader, root, recipe);
  if (teacher.model == "none" && !teacher.server) problem("objective.kind", "expected teacher.model with objective.kind distill, got none — name the teacher's model");
  const auto needs = [&](bool met, const std::string& key, const std::string& wanted, const std::string& got) {
    if (!met) problem(key, fmt::format("expected {} {}, got {}", key, wanted, got));
  };
  needs(!recipe.run.shard_base, "run.shard_base", "false with objective.kind distill", "true");
  if (objective.by_spans()) {
    const std::string with = "with objective.divergence spans";
    needs(teacher.signal == "online" && !teacher.is_self(), "teacher.signal", "online, of a teacher of its own, " + with, teacher.is_self() ? "self" : teacher.signal);
    needs(objective.teacher_tokens == "supervised", "objective.teacher_tokens", "supervised " + with, objective.teacher_tokens);
    needs(objective.on_policy_share == 0, "objective.on_policy.share", "0 " + with, fmt::format("{:g}", objective.on_policy_share));
    needs(objective.temperature == 1, "objective.temperature", "1 " + with, fmt::format("{:g}", objective.temperature));
  }
  if (objective.minifinetuning) {
    const std::string with = "with objective.minifinetuning";
    needs(teacher.signal == "online", "teacher.signal", "online " + with, teacher.signal);
    needs(objective.divergence == "forward_kl", "objective.divergence", "forward_kl " + with, objective.divergence);
    needs(objective.temperature == 1, "objective.temperature", "1 " + with, fmt::format("{:g}", objective.temperature));
    needs(objective.teacher_share == 1, "objective.teacher_share", "1 " + with + ", which gives each token its own", fmt::format("{:g}", objective.teacher_share));
  }
  if (teacher.rest == "label") {
    needs(teacher.cached() && teacher.entries == "top", "teacher.rest", "outcome without teacher.signal cached and teacher.entries top", "label");
    needs(objective.divergence != "reverse_kl", "objective.divergence", "another than reverse_kl with teacher.rest label", "reverse_kl, which is infinite where the teacher has no probability");
  }
  if (teacher.demonstration) {
    needs(objective.teacher_tokens == "supervised", "objective.teacher_tokens", "supervised with teacher.demonstration", objective.teacher_tokens);
    needs(!objective.by_spans() && !teacher.answers(), "teacher.demonstration", "null with objective.divergence spans and teacher.signal answers", "a file");
  }
  if (teacher.is_self()) {
    needs(!teacher.stored(), "teacher.signal", "online with teacher.model self", teacher.signal + " — it is computed beside the student without a second model");
    needs(!teacher.adapter, "teacher.adapter", "null with teacher.model self", "a folder — name the base as teacher.model to put an adapter on it");
    needs(recipe.adapter.quantization_aware == "none", "adapter.quantization_aware", "none with teacher.model self", recipe.adapter.quantization_aware);
  }
  if (teacher.cached() && teacher.entries == "drawn") {
    needs(objective.divergence == "forward_kl", "objective.divergence", "forward_kl with teacher.entries drawn",
          objective.divergence + " — draws are an unbiased target of forward KL alone; take teacher.entries: top, or teacher.signal: online");
  }
}

}  // namespace

void check_together(Reader& reader, const YamlValue& root, const Recipe& recipe) {
  const DataOptions& data = recipe.data;
  const auto problem = [&](const std::string& key, const std::string& text) { reader.problem(written(root, key).place, text); };
  const std::pair<const char*, const std::vector<DataSource>*> splits[] = {
      {"data.train", &data.train}, {"data.validation", &data.validation}, {"data.test", &data.test}, {"data.general", &data.general}};
  for (const auto& [key, sources] : splits) {
    for (size_t i = 0; i < sources->size(); ++i) check_source(reader, root, fmt::format("{}.{}", key, i), (*sources)[i]);
  }
  const YamlValue& train = written(root, "data.train");
  if (data.train.empty() && train.kind == YamlValue::Kind::kList) problem("data.train", "expected data.train to name at least one source, got an empty list");
  if (!data.validation.empty() && data.validation_fraction > 0) {
    problem("data.validation_fraction", "expected data.validation or data.validation_fraction, got both — remove one");
  }
  if (recipe.run.early_stopping_patience && data.validation.empty() && data.validation_fraction == 0) {
    problem("run.early_stopping.patience", "expected validation rows for early stopping, got none — add data.validation or data.validation_fraction");
  }
  if (recipe.schedule.warmup >= 1 && recipe.schedule.warmup != static_cast<double>(static_cast<int64_t>(std::min(recipe.schedule.warmup, 9e15)))) {
    problem("schedule.warmup", fmt::format("expected schedule.warmup below 1 (a share) or a whole number of steps, got {}", recipe.schedule.warmup));
  }
  if (recipe.adapter.kind == "full" && recipe.run.shard_base) {
    problem("run.shard_base", "expected run.shard_base false with adapter.kind full, got true — every process holds all trained matrices");
  }
  const std::string& form = recipe.adapter.quantization_aware;
  const auto rounding_needs = [&](const std::string& key, const std::string& wanted, bool met, const std::string& got) {
    if (form != "none" && !met) problem(key, fmt::format("expected {} {} with adapter.quantization_aware {}, got {}", key, wanted, form, got));
  };
  rounding_needs("adapter.kind", "lora", recipe.adapter.kind == "lora", recipe.adapter.kind + " — only an adapter beside a frozen base is trained through a rounding");
  rounding_needs("adapter.dropout", "0", recipe.adapter.dropout == 0, fmt::format("{:g} — the rounded weight holds the whole adapter", recipe.adapter.dropout));
  rounding_needs("run.shard_base", "false", !recipe.run.shard_base, "true — every process rounds the whole base");
  for (size_t i = 0; i < recipe.exports.size(); ++i) {
    const auto& entry = recipe.exports[i];
    rounding_needs(fmt::format("export.{}.importance", i), "none", entry.format != form || entry.importance == "none", entry.importance + " — it would round otherwise than training did");
    rounding_needs(fmt::format("export.{}.rounding", i), "nearest", entry.format != form || entry.rounding == "nearest", entry.rounding + " — it would round otherwise than training did");
  }
  check_distillation(reader, root, recipe);
  std::set<std::string> formats;
  for (size_t i = 0; i < recipe.exports.size(); ++i) {
    const std::string& format = recipe.exports[i].format;
    if (!format.empty() && !formats.insert(format).second) {
      problem(fmt::format("export.{}", i), fmt::format("expected each export format once, got '{}' again", format));
    }
  }
}

}  // namespace graft
