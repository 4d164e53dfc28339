#include "data/stores/shard_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "checkpoints/atomic_file.h"
#include "checkpoints/hash.h"
#include "data/stores/store_files.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void throw_disk(const std::string& action, const fs::path& path) {
  throw MachineError(
      "store", fmt::format("expected to {}, got \"{}\" ({}) — check space and permissions, or set run.cache to another folder",
                           action, std::strerror(errno), path.string()));
}

void sync_file(const fs::path& path) {
  const int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
  const bool synced = file >= 0 && fsync(file) == 0;
  if (file >= 0) close(file);
  if (!synced) throw_disk("write to the disk", path);
}

}  // namespace

std::string shard_name(int64_t number) { return fmt::format("part-{:05}.h5", number); }

ShardFolder::ShardFolder(fs::path folder, nlohmann::ordered_json description, StoreLog log)
    : folder_(std::move(folder)), description_(std::move(description)), log_(log ? std::move(log) : [](const std::string&) {}) {
  make_private_directory(folder_);
  lock_ = open((folder_ / kStoreLock).c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  if (lock_ < 0) throw_disk("create a lock", folder_);
  if (flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    log_(fmt::format("waiting for another process that writes {}", folder_.filename().string()));
    while (flock(lock_, LOCK_EX) != 0) {
      if (errno != EINTR) throw_disk("lock a store", folder_);
    }
  }
  read_index();
  delete_unlisted();
}

ShardFolder::~ShardFolder() {
  if (lock_ >= 0) close(lock_);
}

void ShardFolder::read_index() {
  std::ifstream stream(folder_ / kStoreIndex, std::ios::binary);
  if (!stream) return;
  const auto index = nlohmann::ordered_json::parse(stream, nullptr, /*allow_exceptions=*/false);
  try {
    if (index.at("description") != description_) {
      log_(fmt::format("{} holds something else: it is made anew", folder_.filename().string()));
      return;
    }
    std::map<int64_t, std::string> hashes;
    for (const auto& shard : index.at("shards"))
      hashes[shard.at("number").get<int64_t>()] = shard.at("sha256").get<std::string>();
    hashes_ = std::move(hashes);
  } catch (const nlohmann::json::exception&) {
    log_(fmt::format("{} has an unreadable {}: it is made anew", folder_.filename().string(), kStoreIndex));
  }
}

void ShardFolder::write_index() const {
  nlohmann::ordered_json index = {{"format", 1}, {"description", description_}, {"shards", nlohmann::ordered_json::array()}};
  for (const auto& [number, hash] : hashes_) index["shards"].push_back({{"number", number}, {"sha256", hash}});
  write_file_atomic(folder_ / kStoreIndex, index.dump(1) + "\n");
}

void ShardFolder::delete_unlisted() const {
  for (const auto& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    bool listed = !is_shard_file(name);
    for (const auto& [number, hash] : hashes_) listed = listed || name == shard_name(number);
    std::error_code ignored;
    if (!listed) fs::remove(entry.path(), ignored);
  }
}

std::vector<int64_t> ShardFolder::numbers() const {
  std::vector<int64_t> numbers;
  for (const auto& [number, hash] : hashes_) numbers.push_back(number);
  return numbers;
}

fs::path ShardFolder::find(int64_t number) {
  const auto listed = hashes_.find(number);
  if (listed == hashes_.end()) return {};
  const fs::path path = folder_ / shard_name(number);
  if (fs::exists(path) && sha256_file(path) == listed->second) return path;
  log_(fmt::format("{}/{} is damaged (its SHA-256 is not the listed one): it is made anew", folder_.filename().string(),
                   shard_name(number)));
  hashes_.erase(listed);
  write_index();
  std::error_code ignored;
  fs::remove(path, ignored);
  return {};
}

void ShardFolder::add(int64_t number, const std::function<void(const fs::path&)>& write) {
  const fs::path path = folder_ / shard_name(number), temporary = path.string() + ".partial";
  try {
    write(temporary);
    if (chmod(temporary.c_str(), 0600) != 0) throw_disk("write a shard", temporary);
    sync_file(temporary);
    const std::string hash = sha256_file(temporary);
    if (rename(temporary.c_str(), path.c_str()) != 0) throw_disk("rename a shard", temporary);
    sync_directory(folder_);
    hashes_[number] = hash;
    write_index();
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
}

}  // namespace graft
