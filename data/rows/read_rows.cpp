#include <algorithm>
#include <functional>
#include <iterator>

#include "checkpoints/hash.h"
#include "data/rows/arrow_tables.h"
#include "data/rows/csv_table.h"
#include "data/rows/dataset.h"
#include "data/rows/json_line.h"
#include "data/rows/record_to_row.h"
#include "data/rows/row_problems.h"
#include "data/rows/text_files.h"
#include "data/rows/utf8_text.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// The rows of one file while it is read.
struct FileRows {
  std::string name;
  RecordReader reader;
  std::vector<Row> rows;
  RowProblems problems;

  std::string place(int64_t line) const { return fmt::format("{}:{}", name, line); }

  // make_record may throw a RowProblem too.
  void add(int64_t line, const std::function<Json()>& make_record) {
    try {
      Row row = reader.read(make_record());
      row.source_file = name;
      row.line = line;
      rows.push_back(std::move(row));
    } catch (const JsonProblem& problem) {
      problems.add(fmt::format("{}:{}", place(line), problem.column), problem.what());
    } catch (const RowProblem& problem) {
      problems.add(place(line), problem.what());
    }
  }
};

// Reports every line with bad bytes: true when there is none.
bool check_utf8(std::string_view text, FileRows& file) {
  int64_t line = 1;
  for (size_t begin = 0; begin < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (const auto bad = first_invalid_utf8(text.substr(begin, end - begin))) {
      file.problems.add(file.place(line), describe_invalid_utf8(text, begin + *bad));
    }
    begin = end + 1;
  }
  return file.problems.count() == 0;
}

void read_jsonl(const std::string& text, FileRows& file) {
  int64_t line = 1;
  for (size_t begin = byte_order_mark(text); begin < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view content = std::string_view(text).substr(begin, end - begin);
    if (const auto bad = first_invalid_utf8(content)) {
      file.problems.add(file.place(line), describe_invalid_utf8(text, begin + *bad));
    } else if (!is_blank(content)) {
      if (line == 1 && content[content.find_first_not_of(" \t\r")] == '[') {
        file.problems.add(file.place(1), "a JSON list: write one object a line (jq -c '.[]' FILE > FILE.jsonl)");
        return;
      }
      file.add(line, [&] { return parse_json_line(content); });
    }
    begin = end + 1;
  }
}

void read_csv(const std::string& text, char delimiter, FileRows& file) {
  if (!check_utf8(text, file)) return;
  const CsvTable table = parse_csv(std::string_view(text).substr(byte_order_mark(text)), delimiter, file.name, file.problems);
  for (size_t index = 0; index < table.records.size(); ++index) {
    file.add(table.lines[index], [&] {
      Json record = Json::object();
      for (size_t column = 0; column < table.names.size(); ++column) record[table.names[column]] = table.records[index][column];
      return record;
    });
  }
}

void read_parquet_file(const fs::path& path, FileRows& file) {
  const Table table = read_parquet(path);
  for (int64_t row = 0; row < table.num_rows; ++row) {
    file.add(row + 1, [&] {
      Json record = Json::object();
      for (const TableColumn& column : table.columns) {
        if (!column.is_text) {
          record[column.name] = Json::array();  // column_text refuses it, if it is asked for
          continue;
        }
        const auto& value = column.values[static_cast<size_t>(row)];
        if (value && first_invalid_utf8(*value)) fail_row("column \"{}\" is not UTF-8", column.name);
        record[column.name] = value ? Json(*value) : Json(nullptr);
      }
      return record;
    });
  }
}

void read_document(const std::string& text, FileRows& file) {
  if (!check_utf8(text, file)) return;
  file.add(1, [&] { return Json{{"text", text.substr(byte_order_mark(text))}}; });
}

enum class FileForm { kJson, kCsv, kTsv, kParquet, kDocument };

FileForm form_of(const fs::path& path, const SourceOptions& source) {
  const std::string ending = path.extension().string();
  const bool is_json = ending == ".jsonl" || ending == ".ndjson" || ending == ".json",
             is_document = ending == ".md" || ending == ".txt";
  if (!is_json && !is_document && ending != ".csv" && ending != ".tsv" && ending != ".parquet") {
    fail("data", "expected a file that ends in .jsonl, .ndjson, .json, .csv, .tsv or .parquet{}, got {} — convert or rename it",
         source.format == "text" ? ", .md or .txt" : "", path.string());
  }
  if (ending == ".parquet" && source.format == "messages") {
    fail("data",
         "expected conversations as JSONL, got Parquet ({}) — its columns pad tool calls with nulls; write JSONL, which is "
         "kept as it is",
         path.string());
  }
  if (is_document && (source.format != "text" || source.text)) {
    fail("data",
         "expected format text without a column for a document, got format {} ({}) — .md and .txt files have no columns",
         source.format, path.string());
  }
  return is_json            ? FileForm::kJson
         : is_document      ? FileForm::kDocument
         : ending == ".csv" ? FileForm::kCsv
         : ending == ".tsv" ? FileForm::kTsv
                            : FileForm::kParquet;
}

void read_text(const std::string& text, FileForm form, FileRows& file) {
  if (is_blank(std::string_view(text).substr(byte_order_mark(text)))) {
    file.problems.add(file.name, "the file is empty");
  } else if (form == FileForm::kJson) {
    read_jsonl(text, file);
  } else if (form == FileForm::kDocument) {
    read_document(text, file);
  } else {
    read_csv(text, form == FileForm::kCsv ? ',' : '\t', file);
  }
  if (file.rows.empty() && file.problems.count() == 0) file.problems.add(file.name, "the file has no rows");
}

void finish(std::vector<Row>& rows, const RowProblems& problems, const SourceOptions& source, const std::string& path) {
  problems.throw_if_any(fmt::format("rows of format {} in {}", source.format, path),
                        "mend these rows; none is skipped silently");
  for (Row& row : rows) row.row_id = sha256(row.json.dump());
}

}  // namespace

std::vector<Row> read_rows(const SourceOptions& source) {
  const RecordReader reader(source);
  std::error_code error;
  const bool several = is_glob(source.path) || fs::is_directory(source.path, error);
  if (several && source.format != "text") {
    fail("data", "expected one file for format {}, got a folder or pattern ({}) — name each file as a source of its own",
         source.format, source.path);
  }
  std::vector<Row> rows;
  RowProblems problems;
  for (const NamedFile& named : list_text_files(source.path)) {
    FileRows file{named.name, reader, {}, {}};
    const FileForm form = form_of(named.path, source);
    if (form == FileForm::kParquet) {
      read_parquet_file(named.path, file);
      if (file.rows.empty() && file.problems.count() == 0) file.problems.add(file.name, "the file has no rows");
    } else {
      read_text(read_text_file(named.path), form, file);
    }
    problems.add_all(file.problems);
    std::move(file.rows.begin(), file.rows.end(), std::back_inserter(rows));
  }
  finish(rows, problems, source, source.path);
  return rows;
}

std::vector<Row> rows_of_text(const std::string& text, const std::string& name, const SourceOptions& source) {
  FileRows file{name, RecordReader(source), {}, {}};
  const FileForm form = form_of(name, source);
  if (form == FileForm::kParquet) fail("data", "expected a text file, got Parquet ({}) — name the file", name);
  read_text(text, form, file);
  finish(file.rows, file.problems, source, name);
  return std::move(file.rows);
}

std::string row_place(const Row& row) { return fmt::format("{}:{}", row.source_file, row.line); }

Json prompt_of(const Row& row) {
  Json prompt = row.json;
  if (row.kind == RowKind::kText) return prompt;
  Json& messages = prompt["messages"];
  while (!messages.empty() && messages.back()["role"] == "assistant") messages.erase(messages.size() - 1);
  return prompt;
}

std::string answer_of(const Row& row) {
  const auto messages = row.json.find("messages");
  if (messages == row.json.end() || messages->empty() || messages->back()["role"] != "assistant") return "";
  return content_text(messages->back());
}

}  // namespace graft
