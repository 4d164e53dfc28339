// libFuzzer: any bytes as CSV. What is read, written with every value quoted, reads back to the same.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "data/rows/csv_table.h"
#include "data/rows/dataset.h"
#include "tests/fuzz/processor_time.h"

namespace {

std::string quoted(const std::vector<std::string>& values) {
  std::string line;
  for (const std::string& value : values) {
    line += line.empty() ? "\"" : ",\"";
    for (const char byte : value) line += byte == '"' ? std::string("\"\"") : std::string(1, byte);
    line += '"';
  }
  return line + "\r\n";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const graft::ProcessorTime limit;
  const std::string text(reinterpret_cast<const char*>(data), size);
  graft::RowProblems problems, none;
  const graft::CsvTable table = graft::parse_csv(text, ',', "fuzz.csv", problems);
  if (problems.count() == 0 && !table.names.empty()) {
    std::string written = quoted(table.names);
    for (const auto& record : table.records) written += quoted(record);
    const graft::CsvTable again = graft::parse_csv(written, ',', "again.csv", none);
    if (none.count() != 0 || again.names != table.names || again.records != table.records) std::abort();
  }
  try {
    graft::rows_of_text(text, "fuzz.csv", {.format = "labelled"});
  } catch (const graft::UserError&) {
  }
  return 0;
}
