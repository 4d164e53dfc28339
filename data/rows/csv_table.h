// CSV and TSV as RFC 4180 has it, strictly, with the line on which each record begins. Read here and not by Arrow, which
// accepts text after a closing quote and an unclosed quote at the end of the file, and counts records instead of lines.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/rows/row_problems.h"

namespace graft {

// Every value is text; an empty value is an empty string. Line ends inside quotes are kept as they are.
struct CsvTable {
  std::vector<std::string> names;                 // of the header
  std::vector<std::vector<std::string>> records;  // each as long as names
  std::vector<int64_t> lines;                     // 1-based line on which a record begins
};

// bytes: valid UTF-8 without byte-order mark. Line ends: LF, CRLF or CR. Empty lines between records are skipped. Problems
// (places are `file:line`): an open quote, text after a closing quote, a record with more or fewer values than the header, a
// column name that is empty or stands twice. Records with a problem are left out of the table.
CsvTable parse_csv(std::string_view bytes, char delimiter, const std::string& file, RowProblems& problems);

}  // namespace graft
