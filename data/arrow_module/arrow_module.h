// The interface of libgraft_arrow.so, without Arrow types. The module is loaded only when a Parquet file is read, so that the
// program starts, and runs on other data, without Arrow.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace graft {

// One column as text: strings as they are, numbers, truth values and dates as Arrow prints them; null stays null.
struct TableColumn {
  std::string name;
  std::string type;     // Arrow's name, for messages
  bool is_text = true;  // false: a list, a struct, ...: no values
  std::vector<std::optional<std::string>> values;
};

struct Table {
  int64_t num_rows = 0;
  std::vector<TableColumn> columns;
  std::string error;  // not empty: nothing else is valid
};

// The type of the function `graft_read_parquet` that the module exports. Never throws.
using ReadParquetFunction = void(const char* path, Table* table);

}  // namespace graft
