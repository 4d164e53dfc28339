// Rows of a recipe's sources, read natively: JSON is kept as JSON. Every problem names file, line and reason; nothing is
// skipped silently.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace graft {

// What to read (the same fields as the recipe's data source; data/ does not include trainer/).
//   path    .jsonl .ndjson .json (one object a line), .csv, .tsv, .parquet; for format text also .md, .txt, a folder of
//           these, or a glob (`*`, `?` within a name, `**` across folders), read in sorted order
//   format  messages    {"messages": [{"role", "content", ...}], "tools"?: [...]}
//           completion  {"prompt": text or messages, "completion": text or assistant messages}; or both written here
//           text        {"text": ...}, or the column `text`
//           labelled    columns `text` and `label` (default: those names); `prompt` is the question, `completion` the answer
//           prompts     {"messages": [...]}, {"prompt": ...} or the column `text`; no answer
//   prompt, completion  text in which {column} is replaced by that column; {{ and }} are braces. Default: the text, the label
//   system  a system message before the prompt (completion, labelled, prompts)
//   weight  scales the loss of these rows
struct SourceOptions {
  std::string path, format;
  std::optional<std::string> text, label, prompt, completion, system;
  double weight = 1;
};

enum class RowKind { kConversation, kText, kPrompt };

// One row, normalised. kConversation: json = {"messages": [...], "tools"?...}; completion and labelled rows become messages
// with the (system,) prompt as user turn and the answer as assistant turn. kText: json = {"text": "..."}. kPrompt: messages
// without an answer.
struct Row {
  RowKind kind = RowKind::kConversation;
  nlohmann::ordered_json json;
  std::string source_file;  // file name without directories; below a folder or glob: the path relative to it
  int64_t line = 0;         // 1-based: line where the record begins (JSONL, CSV), record number (Parquet), 1 (a whole file)
  std::string text;         // the text that identifies the row: the text column, all user turns, or the document
  std::optional<std::string> label;  // labelled rows
  double weight = 1;
  std::string row_id;  // SHA-256 (hex) of the JSON as compact text
};

// All rows of a source, in file order. Throws one UserError that lists up to 20 problems of a file as `file:line: reason`:
// malformed JSON (with column), duplicate keys, bad UTF-8 (byte offset in the file), an empty file, missing or ill-typed
// columns (naming those that exist), unknown roles, null or empty content, rows without an answer, uneven CSV records, open
// quotes.
std::vector<Row> read_rows(const SourceOptions& source);
// The same for a file that is in memory; the ending of `name` says what it is. Not for Parquet.
std::vector<Row> rows_of_text(const std::string& text, const std::string& name, const SourceOptions& source);

// "train.jsonl:17", as errors and plans show a row.
std::string row_place(const Row& row);
// What a server would be asked: the messages before the final assistant turn, with the row's other keys (tools).
nlohmann::ordered_json prompt_of(const Row& row);
// The text of the final assistant turn; empty when there is none.
std::string answer_of(const Row& row);

}  // namespace graft
