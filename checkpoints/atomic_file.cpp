#include "checkpoints/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "kernels/common/error.h"

namespace graft {
namespace {

std::filesystem::path parent_of(const std::filesystem::path& path) {
  const auto parent = path.parent_path();
  return parent.empty() ? "." : parent;
}

[[noreturn]] void fail_machine(std::string_view action, const std::filesystem::path& path, int error) {
  const char* advice =
      error == ENOSPC || error == EDQUOT ? "free disk space and run it again" : "check the path, its permissions and the disk";
  throw MachineError("checkpoints", fmt::format("cannot {} {}: {} — {}", action, path.string(), std::strerror(error), advice));
}

}  // namespace

AtomicFile::AtomicFile(const std::filesystem::path& path) : path_(path), partial_(path.string() + ".partial") {
  // A new inode, so that a left-over's permissions or a link under this name cannot matter.
  ::unlink(partial_.c_str());
  file_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (file_ < 0) fail_machine("create", partial_, errno);
}

AtomicFile::~AtomicFile() {
  if (file_ < 0) return;
  ::close(file_);
  ::unlink(partial_.c_str());
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      partial_(std::move(other.partial_)),
      file_(std::exchange(other.file_, -1)),
      end_(other.end_) {}

void AtomicFile::fail_and_remove(std::string_view action, int error) {
  if (file_ >= 0) ::close(std::exchange(file_, -1));
  ::unlink(partial_.c_str());
  fail_machine(action, path_, error);
}

void AtomicFile::reserve(uint64_t bytes) {
  const auto length = static_cast<off_t>(bytes);
  if (bytes == 0) return;
  // Some file systems cannot reserve: there the length is set, and a full disk shows while writing.
  if (::fallocate(file_, 0, 0, length) == 0) return;
  if (errno != EOPNOTSUPP && errno != ENOSYS) fail_and_remove(fmt::format("reserve {} bytes for", bytes), errno);
  if (::ftruncate(file_, length) != 0) fail_and_remove("set the length of", errno);
}

void AtomicFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail_and_remove("write", written < 0 ? errno : ENOSPC);
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  write_at(end_, bytes);
  end_ += bytes.size();
}

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFile::commit() {
  if (::fsync(file_) != 0) fail_and_remove("sync", errno);
  if (::close(std::exchange(file_, -1)) != 0) fail_and_remove("close", errno);
  if (::rename(partial_.c_str(), path_.c_str()) != 0) fail_and_remove("rename to", errno);
  sync_directory(parent_of(path_));
}

void write_file_atomic(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

void write_file_atomic(const std::filesystem::path& path, std::string_view text) {
  write_file_atomic(path, std::as_bytes(std::span(text)));
}

void sync_directory(const std::filesystem::path& directory) {
  const int file = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) fail_machine("open the folder", directory, errno);
  const int result = ::fsync(file);
  const int error = errno;
  ::close(file);
  if (result != 0 && error != EINVAL) fail_machine("sync the folder", directory, error);  // EINVAL: a file system without it
}

void make_private_directory(const std::filesystem::path& directory) {
  if (directory.empty() || std::filesystem::is_directory(directory)) return;
  const auto parent = directory.parent_path();
  if (parent != directory) make_private_directory(parent);
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) fail_machine("create the folder", directory, errno);
  if (!std::filesystem::is_directory(directory)) fail_machine("create the folder", directory, ENOTDIR);
}

void rename_directory_atomic(const std::filesystem::path& from, const std::filesystem::path& to) {
  sync_directory(from);
  // rename() would silently replace an empty folder.
  if (std::filesystem::exists(to)) fail_machine("rename a folder to", to, EEXIST);
  if (::rename(from.c_str(), to.c_str()) != 0) fail_machine("rename a folder to", to, errno);
  sync_directory(parent_of(to));
  if (parent_of(from) != parent_of(to)) sync_directory(parent_of(from));
}

}  // namespace graft
