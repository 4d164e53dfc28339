#include "data/rows/csv_table.h"

#include <algorithm>

namespace graft {
namespace {

class CsvReader {
 public:
  CsvReader(std::string_view bytes, char delimiter) : bytes_(bytes), delimiter_(delimiter) {}

  // The next record that is no empty line; false at the end. After a RowProblem the reader stands at the next line, or at the
  // end when a quote stays open.
  bool next(std::vector<std::string>& record, int64_t& line) {
    while (at_ < bytes_.size() && is_line_end(bytes_[at_])) skip_line_end();
    if (at_ == bytes_.size()) return false;
    record.clear();
    line = line_;
    do {
      record.push_back(bytes_at() == '"' ? quoted() : plain());
    } while (at_ < bytes_.size() && bytes_[at_] == delimiter_ && ++at_);
    if (at_ < bytes_.size() && !is_line_end(bytes_[at_])) {
      const int64_t column_number = static_cast<int64_t>(record.size());
      while (at_ < bytes_.size() && !is_line_end(bytes_[at_])) ++at_;
      fail_row("text after the closing quote of value {}: write a quote inside a quoted value twice", column_number);
    }
    if (at_ < bytes_.size()) skip_line_end();
    return true;
  }

 private:
  static bool is_line_end(char byte) { return byte == '\n' || byte == '\r'; }
  char bytes_at() const { return at_ < bytes_.size() ? bytes_[at_] : '\0'; }
  void skip_line_end() {
    if (bytes_[at_++] == '\r' && bytes_at() == '\n') ++at_;
    ++line_;
  }
  std::string plain() {
    const size_t begin = at_;
    while (at_ < bytes_.size() && bytes_[at_] != delimiter_ && !is_line_end(bytes_[at_])) ++at_;
    return std::string(bytes_.substr(begin, at_ - begin));
  }
  std::string quoted() {
    std::string value;
    for (++at_; at_ < bytes_.size(); ++at_) {
      if (bytes_[at_] == '"' && ++at_ <= bytes_.size() && bytes_at() != '"') return value;
      value += bytes_[at_];
      if (bytes_[at_] == '\n' || (bytes_[at_] == '\r' && (at_ + 1 == bytes_.size() || bytes_[at_ + 1] != '\n'))) ++line_;
    }
    fail_row("a quote that is opened in this record is never closed");
  }

  std::string_view bytes_;
  char delimiter_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

std::string place(const std::string& file, int64_t line) { return fmt::format("{}:{}", file, line); }

void check_names(const CsvTable& table, const std::string& where, RowProblems& problems) {
  for (size_t index = 0; index < table.names.size(); ++index) {
    const auto end = table.names.begin() + static_cast<int64_t>(index);
    if (table.names[index].empty()) problems.add(where, fmt::format("column {} has no name in the header", index + 1));
    if (std::find(table.names.begin(), end, table.names[index]) != end) {
      problems.add(where, fmt::format("two columns are named \"{}\"", table.names[index]));
    }
  }
}

}  // namespace

CsvTable parse_csv(std::string_view bytes, char delimiter, const std::string& file, RowProblems& problems) {
  CsvTable table;
  CsvReader reader(bytes, delimiter);
  std::vector<std::string> record;
  int64_t line = 1;
  bool more = true, header_read = false;
  while (more) {
    try {
      more = reader.next(record, line);
      if (!more) break;
      if (!header_read) {
        header_read = true;
        table.names = record;
        check_names(table, place(file, line), problems);
      } else if (record.size() != table.names.size()) {
        fail_row("{} values, but the header has {} columns", record.size(), table.names.size());
      } else {
        table.records.push_back(record);
        table.lines.push_back(line);
      }
    } catch (const RowProblem& problem) {
      problems.add(place(file, line), problem.what());
      if (!header_read) break;
    }
  }
  return table;
}

}  // namespace graft
