#include "trainer/report/append_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "kernels/common/error.h"

namespace graft {

AppendFile::AppendFile(const std::filesystem::path& path) : path_(path) {
  file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file_ < 0) fail_with("open");
}

AppendFile::~AppendFile() {
  if (file_ >= 0) ::close(file_);
}

AppendFile::AppendFile(AppendFile&& other) noexcept : path_(std::move(other.path_)), file_(std::exchange(other.file_, -1)) {}

AppendFile& AppendFile::operator=(AppendFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  return *this;
}

void AppendFile::fail_with(std::string_view action) const {
  const int error = errno;
  throw MachineError("report", fmt::format("cannot {} {}: {} — {}", action, path_.string(), std::strerror(error),
                                           error == ENOSPC || error == EDQUOT ? "free disk space and run it again with --resume"
                                                                              : "check the path, its permissions and the disk"));
}

void AppendFile::append(std::string_view record) {
  while (is_open() && !record.empty()) {
    const ssize_t written = ::write(file_, record.data(), record.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_with("append to");
    record.remove_prefix(static_cast<size_t>(written));
  }
}

uint64_t AppendFile::size() const {
  struct stat status {};
  if (::fstat(file_, &status) != 0) fail_with("measure");
  return static_cast<uint64_t>(status.st_size);
}

std::string AppendFile::read_all() const {
  std::string content(size(), '\0');
  for (size_t done = 0; done < content.size();) {
    const ssize_t got = ::pread(file_, content.data() + done, content.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_with("read");
    if (got == 0) content.resize(done);   // somebody else shortened it
    done += static_cast<size_t>(got);
  }
  return content;
}

void AppendFile::truncate(uint64_t length) {
  if (::ftruncate(file_, static_cast<off_t>(length)) != 0) fail_with("shorten");
  if (::fsync(file_) != 0) fail_with("sync");
}

}  // namespace graft
