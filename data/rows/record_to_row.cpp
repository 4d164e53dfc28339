#include "data/rows/record_to_row.h"

#include "data/rows/row_problems.h"
#include "data/rows/utf8_text.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

struct FormatKeys {
  const char* format;
  const char* keys;
};  // keys of the source that the format reads
constexpr FormatKeys kFormats[] = {{"messages", ""},
                                   {"completion", "prompt completion system"},
                                   {"text", "text"},
                                   {"labelled", "text label prompt completion system"},
                                   {"prompts", "text prompt system"}};

void check_keys(const SourceOptions& source) {
  const FormatKeys* format = nullptr;
  for (const FormatKeys& known : kFormats) {
    if (source.format == known.format) format = &known;
  }
  if (!format)
    fail("data", "expected format messages, completion, text, labelled or prompts, got \"{}\" ({})", source.format,
         source.path);
  const std::pair<const char*, const std::optional<std::string>*> keys[] = {{"text", &source.text},
                                                                            {"label", &source.label},
                                                                            {"prompt", &source.prompt},
                                                                            {"completion", &source.completion},
                                                                            {"system", &source.system}};
  for (const auto& [name, value] : keys) {
    const std::string used = std::string(" ") + format->keys + " ";
    if (value->has_value() && used.find(std::string(" ") + name + " ") == std::string::npos) {
      fail("data", "expected no `{}` beside format {}, which does not use it ({}) — remove the key", name, source.format,
           source.path);
    }
  }
}

Json message(const char* role, std::string content) { return Json{{"role", role}, {"content", std::move(content)}}; }

std::string not_blank(std::string text, const std::string& what) {
  if (is_blank(text)) fail_row("{} is empty", what);
  return text;
}

// A member of the record; names the members that exist when it is missing.
const Json& member(const Json& record, const std::string& name) {
  if (!record.contains(name)) column_text(record, name);  // throws
  return record[name];
}

bool has_answer(const Json& messages) {
  for (const Json& entry : messages) {
    if (entry["role"] == "assistant" && (!is_blank(content_text(entry)) || entry.contains("tool_calls"))) return true;
  }
  return false;
}

void check_tools(const Json& record) {
  const auto tools = record.find("tools");
  if (tools != record.end() && !tools->is_null() && !tools->is_array()) fail_row("expected \"tools\" to be a list");
}

}  // namespace

RecordReader::RecordReader(const SourceOptions& source) : source_(source) {
  check_keys(source);
  if (source.prompt) prompt_.emplace(*source.prompt, "prompt");
  if (source.completion) completion_.emplace(*source.completion, "completion");
}

Row RecordReader::read(Json record) const {
  if (!record.is_object()) fail_row("expected an object, got a JSON {}", record.type_name());
  Row row = source_.format == "messages"     ? read_messages(std::move(record))
            : source_.format == "completion" ? read_completion(std::move(record))
            : source_.format == "text"       ? read_text(std::move(record))
            : source_.format == "labelled"   ? read_labelled(record)
                                             : read_prompt(std::move(record));
  row.weight = source_.weight;
  return row;
}

Row RecordReader::read_messages(Json record) const {
  if (!record.contains("messages") && record.contains("conversations")) {
    fail_row(
        "no \"messages\", but \"conversations\" (ShareGPT): rename it, its \"from\" to \"role\" and \"value\" to \"content\"");
  }
  Row row;
  row.text = check_messages(member(record, "messages"));
  check_tools(record);
  if (!has_answer(record["messages"])) fail_row("nothing to train on: no assistant message with content");
  row.json = std::move(record);
  return row;
}

Row RecordReader::read_completion(Json record) const {
  Row row;
  Json messages = Json::array();
  if (source_.system) messages.push_back(message("system", *source_.system));
  const bool prompt_is_list = !prompt_ && member(record, "prompt").is_array();
  if (prompt_is_list) {
    row.text = check_messages(record["prompt"]);
    for (const Json& entry : record["prompt"]) messages.push_back(entry);
  } else {
    row.text = not_blank(prompt_ ? prompt_->fill(record) : column_text(record, "prompt"), "the prompt");
    messages.push_back(message("user", row.text));
  }
  if (!completion_ && member(record, "completion").is_array()) {
    check_messages(record["completion"]);
    if (!has_answer(record["completion"]))
      fail_row("nothing to train on: \"completion\" has no assistant message with content");
    for (const Json& entry : record["completion"]) messages.push_back(entry);
  } else {
    messages.push_back(message(
        "assistant", not_blank(completion_ ? completion_->fill(record) : column_text(record, "completion"), "the completion")));
  }
  check_tools(record);
  row.json["messages"] = std::move(messages);
  if (record.contains("tools")) row.json["tools"] = std::move(record["tools"]);
  return row;
}

Row RecordReader::read_text(Json record) const {
  Row row;
  row.kind = RowKind::kText;
  const std::string column = source_.text.value_or("text");
  row.text = not_blank(column_text(record, column), fmt::format("column \"{}\"", column));
  row.json["text"] = row.text;
  return row;
}

Row RecordReader::read_labelled(const Json& record) const {
  Row row;
  const std::string text = source_.text.value_or("text"), label = source_.label.value_or("label");
  row.text = not_blank(column_text(record, text), fmt::format("column \"{}\"", text));
  row.label = not_blank(column_text(record, label), fmt::format("column \"{}\"", label));
  Json messages = Json::array();
  if (source_.system) messages.push_back(message("system", *source_.system));
  messages.push_back(message("user", prompt_ ? not_blank(prompt_->fill(record), "the prompt") : row.text));
  messages.push_back(message("assistant", completion_ ? not_blank(completion_->fill(record), "the completion") : *row.label));
  row.json["messages"] = std::move(messages);
  return row;
}

Row RecordReader::read_prompt(Json record) const {
  Row row;
  row.kind = RowKind::kPrompt;
  const char* list = record.contains("messages") ? "messages" : "prompt";
  if (!prompt_ && !source_.text && record.contains(list) && record[list].is_array()) {
    row.text = check_messages(record[list]);
    if (record[list].back()["role"] == "assistant")
      fail_row("expected a prompt without an answer, but the last message is the assistant's");
    Json messages = Json::array();
    if (source_.system) messages.push_back(message("system", *source_.system));
    for (const Json& entry : record[list]) messages.push_back(entry);
    row.json["messages"] = std::move(messages);
  } else {
    const std::string column = source_.text.value_or("prompt");
    const std::string prompt = not_blank(prompt_ ? prompt_->fill(record) : column_text(record, column), "the prompt");
    row.text = prompt_ && source_.text ? column_text(record, column) : prompt;
    row.json["messages"] = Json::array();
    if (source_.system) row.json["messages"].push_back(message("system", *source_.system));
    row.json["messages"].push_back(message("user", prompt));
  }
  check_tools(record);
  if (record.contains("tools")) row.json["tools"] = std::move(record["tools"]);
  return row;
}

}  // namespace graft
