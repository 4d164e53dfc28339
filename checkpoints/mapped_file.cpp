#include "checkpoints/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/common/error.h"

namespace graft {
namespace {

struct Descriptor {
  int number;
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
};

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  // O_NONBLOCK: a named pipe is refused below instead of waited for.
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.number < 0)
    fail("checkpoints", "expected a readable file, got \"{}\" ({}) — check the path and its permissions", std::strerror(errno),
         path.string());
  struct stat status;
  if (::fstat(file.number, &status) != 0)
    throw MachineError("checkpoints", fmt::format("cannot read the size of {}: {}", path.string(), std::strerror(errno)));
  if (!S_ISREG(status.st_mode))
    fail("checkpoints", "expected a regular file, got {} ({}) — give the path of the model file",
         S_ISDIR(status.st_mode) ? "a directory" : "a device or pipe", path.string());
  const auto size = static_cast<size_t>(status.st_size);
  if (size == 0) return;  // an empty mapping is an error of mmap, and an empty span says all there is
  void* start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number, 0);
  if (start == MAP_FAILED)
    throw MachineError("checkpoints", fmt::format("cannot map {} ({} bytes): {} — check the address space limit (ulimit -v)",
                                                  path.string(), size, std::strerror(errno)));
  bytes_ = {static_cast<const std::byte*>(start), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::forget(std::span<const std::byte> bytes) const {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto address = [](const std::byte* at) { return reinterpret_cast<uintptr_t>(at); };
  const uintptr_t first = std::max(address(bytes.data()), address(bytes_.data())), end = std::min(address(bytes.data() + bytes.size()), address(bytes_.data() + bytes_.size()));
  const uintptr_t first_page = (first + page - 1) / page * page, end_page = end / page * page;
  if (first < end && first_page < end_page) ::madvise(reinterpret_cast<void*>(first_page), end_page - first_page, MADV_DONTNEED);
}

MappedFile::MappedFile(MappedFile&& other) noexcept : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace graft
