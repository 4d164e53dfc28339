#include "data/rows/arrow_tables.h"

#include "kernels/common/error.h"
#include "kernels/common/module_function.h"

namespace graft {
namespace {

ReadParquetFunction* load_module() {
  void* function = module_function("libgraft_arrow.so", "graft_read_parquet", GRAFT_ARROW_MODULE_FOLDER);
  if (!function) {
    throw MachineError(
        "data", fmt::format("expected libgraft_arrow.so, which reads Parquet, got \"{}\" — build the target graft_arrow, "
                            "or convert the file to JSONL or CSV",
                            dlerror()));
  }
  return reinterpret_cast<ReadParquetFunction*>(function);
}

}  // namespace

Table read_parquet(const std::filesystem::path& path) {
  static ReadParquetFunction* const read = load_module();
  Table table;
  read(path.c_str(), &table);
  if (!table.error.empty())
    fail("data", "expected a Parquet file, got \"{}\" ({}) — write the file anew", table.error, path.string());
  return table;
}

}  // namespace graft
