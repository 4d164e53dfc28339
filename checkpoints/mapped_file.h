// A whole file mapped read-only. The mapping ends with the object, and every span into it with the mapping.
#pragma once
#include <cstddef>
#include <filesystem>
#include <span>

namespace graft {

class MappedFile {
 public:
  // UserError when the path is missing, unreadable or no regular file; MachineError when the system cannot map it.
  // A file that another process cuts short while it is mapped raises SIGBUS on access: model files are not edited in place.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }
  // Pages that lie whole in `bytes` and were read go back to the page cache: no memory of this process until they are read again. Bytes that
  // are not of this file stay as they are.
  void forget(std::span<const std::byte> bytes) const;

 private:
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

}  // namespace graft
