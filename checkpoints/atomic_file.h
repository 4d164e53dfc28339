// Files that are there whole or not at all, also after a kill, a power cut or a full disk: written as <name>.partial, synced,
// renamed, then the folder is synced. Files get mode 0600 and folders 0700: they hold what was learnt from a company's rows.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

namespace graft {

// All errors are MachineErrors that name the file and the system's reason; the .partial file is then removed.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);  // opens <path>.partial, replacing a left-over of a killed process
  ~AtomicFile();                                           // without commit(): removes <path>.partial
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;

  // Takes `bytes` of disk at once, so that a full disk shows before the work and not after it. Unwritten bytes are zero.
  void reserve(uint64_t bytes);
  void write(std::span<const std::byte> bytes);  // behind the last write()
  void write(std::string_view text);
  void write_at(uint64_t offset, std::span<const std::byte> bytes);  // anywhere, in any order
  void commit();                                                     // sync, rename to `path`, sync the folder
  const std::filesystem::path& path() const { return path_; }

 private:
  [[noreturn]] void fail_and_remove(std::string_view action, int error);

  std::filesystem::path path_, partial_;
  int file_ = -1;
  uint64_t end_ = 0;
};

void write_file_atomic(const std::filesystem::path& path, std::span<const std::byte> bytes);
void write_file_atomic(const std::filesystem::path& path, std::string_view text);

// Makes the names in a folder durable.
void sync_directory(const std::filesystem::path& directory);

// Creates the folder (mode 0700) and those above it that are missing. One that is there is left as it is.
void make_private_directory(const std::filesystem::path& directory);

// Renames a finished folder, whose files are synced, to a name that does not exist yet, and syncs both parents.
void rename_directory_atomic(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace graft
