// Loads libgraft_arrow.so on first use and reads Parquet through it.
#pragma once
#include <filesystem>

#include "data/arrow_module/arrow_module.h"

namespace graft {

// Throws UserError when the file is no readable Parquet file, MachineError when the module is missing or does not load.
Table read_parquet(const std::filesystem::path& path);

}  // namespace graft
