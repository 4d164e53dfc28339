#include "data/rows/arrow_tables.h"

#include <dlfcn.h>

#include "kernels/common/error.h"

namespace graft {
namespace {

// Beside the program, else where this build put it.
std::filesystem::path module_path() {
  constexpr const char* kName = "libgraft_arrow.so";
  std::error_code error;
  const auto beside = std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / kName;
  if (!error && std::filesystem::exists(beside)) return beside;
  return std::filesystem::path(GRAFT_ARROW_MODULE_FOLDER) / kName;
}

ReadParquetFunction* load_module() {
  const std::string path = module_path().string();
  void* module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // never closed: Arrow keeps threads and memory pools
  void* function = module ? dlsym(module, "graft_read_parquet") : nullptr;
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
