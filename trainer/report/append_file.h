// A file that grows by whole records (metrics, events, log): mode 0600, each record in the file when append returns.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace graft {

// Errors are MachineErrors that name the file. A record is handed to the system in one write; it is not synced, because a checkpoint decides
// what counts, and what a power cut takes is cut back anyway.
class AppendFile {
 public:
  AppendFile() = default;   // not open: append does nothing
  explicit AppendFile(const std::filesystem::path& path);   // creates it, or appends to it
  ~AppendFile();
  AppendFile(AppendFile&& other) noexcept;
  AppendFile& operator=(AppendFile&& other) noexcept;

  bool is_open() const { return file_ >= 0; }
  void append(std::string_view record);
  std::string read_all() const;
  void truncate(uint64_t length);   // keeps the first `length` bytes
  uint64_t size() const;
  const std::filesystem::path& path() const { return path_; }

 private:
  [[noreturn]] void fail_with(std::string_view action) const;

  std::filesystem::path path_;
  int file_ = -1;
};

}  // namespace graft
