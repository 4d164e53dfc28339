// One record (a JSON object of a JSONL line, or the named values of a CSV or Parquet record) to a Row of the source's format.
#pragma once
#include <optional>

#include "data/rows/dataset.h"
#include "data/rows/prompt_text.h"

namespace graft {

class RecordReader {
 public:
  // Throws UserError on an unknown format, and on a key of the source that the format does not use.
  explicit RecordReader(const SourceOptions& source);
  // Fills kind, json, text, label and weight. Throws RowProblem.
  Row read(nlohmann::ordered_json record) const;

 private:
  Row read_messages(nlohmann::ordered_json record) const;
  Row read_completion(nlohmann::ordered_json record) const;
  Row read_text(nlohmann::ordered_json record) const;
  Row read_labelled(const nlohmann::ordered_json& record) const;
  Row read_prompt(nlohmann::ordered_json record) const;

  SourceOptions source_;
  std::optional<PromptText> prompt_, completion_;
};

// Checks a list of messages: objects with a known role and content (text, or a list of text parts); null content only beside
// tool_calls. Throws RowProblem that names the message, counted from 1. Returns the user turns' texts, joined by a line end.
std::string check_messages(const nlohmann::ordered_json& messages);
// Text of a message's content: a string, or the text parts joined; empty for null.
std::string content_text(const nlohmann::ordered_json& message);

}  // namespace graft
