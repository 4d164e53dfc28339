// Names of the files in a store's folder, and what `graft cache` does with such folders.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

inline constexpr const char* kStoreIndex = "index.json";
inline constexpr const char* kStoreLock = "lock";
// part-00017.h5, also with an ending .partial: files that ShardFolder makes and may delete.
bool is_shard_file(std::string_view name);

// One store below a cache folder.
struct StoreEntry {
  std::string name;      // of its folder
  std::string kind;      // tokens | teacher | ...
  int64_t num_rows = 0;  // as its description says; 0 when it does not
  int64_t num_shards = 0;
  int64_t bytes = 0;      // on disk
  int64_t changed = 0;    // unix seconds of the index's last change
  bool complete = false;  // all shards are there
};

// Every store in `cache`, by name; a missing folder has none. Folders without a store's index are not listed.
std::vector<StoreEntry> list_stores(const std::filesystem::path& cache);
// Deletes the store `name` in `cache`; returns the bytes freed. Only the files that stores make are deleted, so that a folder
// that holds something else stays. Throws UserError for an unknown name (listing the known ones) or a store that another
// process uses.
int64_t remove_store(const std::filesystem::path& cache, const std::string& name);

}  // namespace graft
