// A folder of immutable shards that survives a kill at any moment (DESIGN section 3, Stores): part-00017.h5 is written under a
// temporary name, closed, fsynced, renamed, and only then listed with its SHA-256 in index.json, which is replaced atomically.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace graft {

// Where a store says what it does: waiting for another process, a damaged shard that is made anew.
using StoreLog = std::function<void(const std::string&)>;

class ShardFolder {
 public:
  // Opens or creates the folder (0700) and takes its lock, waiting for a process that has it. description: what decides the
  // content; a folder whose index describes something else, or has an unreadable index, is emptied. Files of shards that the
  // index does not list are deleted. Throws MachineError when the disk refuses.
  ShardFolder(std::filesystem::path folder, nlohmann::ordered_json description, StoreLog log = {});
  ~ShardFolder();
  ShardFolder(const ShardFolder&) = delete;
  ShardFolder& operator=(const ShardFolder&) = delete;

  // The file of shard `number` when it is listed and its bytes have the listed SHA-256; empty otherwise. A damaged or missing
  // file is logged, deleted and no longer listed. Read the file before the next call.
  std::filesystem::path find(int64_t number);
  // write(path) makes the file; then it is listed. Replaces nothing: the number must not be listed.
  void add(int64_t number, const std::function<void(const std::filesystem::path&)>& write);
  std::vector<int64_t> numbers() const;   // of the listed shards, ascending
  int64_t num_shards() const { return static_cast<int64_t>(hashes_.size()); }
  const std::filesystem::path& folder() const { return folder_; }

 private:
  void read_index();
  void write_index() const;
  void delete_unlisted() const;

  std::filesystem::path folder_;
  nlohmann::ordered_json description_;
  StoreLog log_;
  std::map<int64_t, std::string> hashes_;  // of the listed shards
  int lock_ = -1;
};

// "part-00017.h5".
std::string shard_name(int64_t number);

}  // namespace graft
