// Rows of a recipe's sources, read natively: JSON is kept as JSON. Every problem names file, line and reason; nothing is skipped silently.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace graft {

// What to read (the same fields as the recipe's data source; data/ does not include trainer/).
struct SourceOptions {
  std::string path, format;
  std::optional<std::string> text, label, prompt, completion, system;
  double weight = 1;
};

// One row, normalised. kind messages: `json` = {"messages": [...], "tools"?...}; completion and labelled rows become messages with the
// (system,) prompt as user turn and the answer as assistant turn; text: json = {"text": "..."}; prompts: messages without an answer.
struct Row {
  nlohmann::ordered_json json;
  std::string source_file;          // file name without directories
  int64_t line = 0;                 // 1-based line (JSONL) or record number (CSV, Parquet), file number (text folders)
  std::string text;                 // the text that identifies the row: user text, or the document
  std::optional<std::string> label; // labelled rows
  double weight = 1;
  std::string row_id;               // SHA-256 (hex) of the canonical JSON
};

std::vector<Row> read_rows(const SourceOptions& source);

}  // namespace graft
