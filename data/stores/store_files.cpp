#include "data/stores/store_files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "kernels/common/error.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

bool is_store_file(const std::string& name) {
  return name == kStoreIndex || name == std::string(kStoreIndex) + ".partial" || name == kStoreLock || is_shard_file(name);
}

bool read_entry(const fs::path& folder, StoreEntry& entry) {
  std::ifstream stream(folder / kStoreIndex, std::ios::binary);
  if (!stream) return false;
  const auto index = nlohmann::ordered_json::parse(stream, nullptr, /*allow_exceptions=*/false);
  try {
    const auto& description = index.at("description");
    entry.name = folder.filename().string();
    entry.kind = description.at("kind").get<std::string>();
    entry.num_rows = description.value("rows", int64_t{0});
    entry.num_shards = static_cast<int64_t>(index.at("shards").size());
    entry.complete = entry.num_shards >= description.value("shards", int64_t{0});
  } catch (const nlohmann::json::exception&) {
    return false;
  }
  struct stat status {};
  if (stat((folder / kStoreIndex).c_str(), &status) == 0) entry.changed = status.st_mtime;
  for (const auto& file : fs::directory_iterator(folder)) {
    std::error_code ignored;
    if (is_store_file(file.path().filename().string())) entry.bytes += static_cast<int64_t>(file.file_size(ignored));
  }
  return true;
}

}  // namespace

bool is_shard_file(std::string_view name) {
  if (constexpr std::string_view kPartial = ".partial"; name.ends_with(kPartial)) name.remove_suffix(kPartial.size());
  if (!name.starts_with("part-") || !name.ends_with(".h5")) return false;
  name = name.substr(5, name.size() - 8);
  return name.size() >= 5 && std::all_of(name.begin(), name.end(), [](char digit) { return digit >= '0' && digit <= '9'; });
}

std::vector<StoreEntry> list_stores(const fs::path& cache) {
  std::vector<StoreEntry> entries;
  if (!fs::is_directory(cache)) return entries;
  for (const auto& folder : fs::directory_iterator(cache)) {
    StoreEntry entry;
    if (folder.is_directory() && read_entry(folder.path(), entry)) entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const StoreEntry& a, const StoreEntry& b) { return a.name < b.name; });
  return entries;
}

int64_t remove_store(const fs::path& cache, const std::string& name) {
  const auto entries = list_stores(cache);
  const auto found = std::find_if(entries.begin(), entries.end(), [&](const StoreEntry& entry) { return entry.name == name; });
  if (found == entries.end()) {
    std::vector<std::string> names;
    for (const StoreEntry& entry : entries) names.push_back(entry.name);
    fail("store", "expected the name of a store, got \"{}\" ({}) — there is {}", name, cache.string(),
         names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")));
  }
  const fs::path folder = cache / name;
  const int lock = open((folder / kStoreLock).c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  const bool locked = lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0;
  if (!locked) {
    if (lock >= 0) close(lock);
    fail("store", "expected a store that nobody uses, got one that another process has locked ({}) — wait for it to end",
         folder.string());
  }
  std::error_code ignored;
  fs::remove(folder / kStoreIndex, ignored);  // first: without it the rest is no store any more
  std::vector<fs::path> files;
  for (const auto& file : fs::directory_iterator(folder)) files.push_back(file.path());
  for (const fs::path& file : files) {
    if (is_store_file(file.filename().string())) fs::remove(file, ignored);
  }
  close(lock);
  fs::remove(folder, ignored);  // stays when it holds anything else
  return found->bytes;
}

}  // namespace graft
