// Reads a file's header field by field; no read passes the end, and every error says where.
#pragma once
#include <cstring>
#include <filesystem>
#include <span>
#include <string_view>

#include "checkpoints/quote.h"
#include "kernels/common/error.h"

namespace graft {

class ByteCursor {
 public:
  ByteCursor(std::span<const std::byte> bytes, const std::filesystem::path& file) : bytes_(bytes), file_(file) {}

  size_t position() const { return position_; }
  size_t remaining() const { return bytes_.size() - position_; }
  const std::filesystem::path& file() const { return file_; }

  // The next `count` bytes; `what` names them in the error.
  std::span<const std::byte> take(uint64_t count, std::string_view what) {
    if (count > remaining())
      fail("checkpoints",
           "expected {} bytes for {}, got the end of the file after {} ({}, byte {}) — it is cut short or damaged; copy it "
           "again",
           count, escaped(what), remaining(), file_.string(), position_);
    const auto taken = bytes_.subspan(position_, static_cast<size_t>(count));
    position_ += taken.size();
    return taken;
  }

  // A little-endian number (this machine's own order: x86-64 and AArch64 only).
  template <typename Number>
  Number read(std::string_view what) {
    Number value;
    std::memcpy(&value, take(sizeof value, what).data(), sizeof value);
    return value;
  }

 private:
  std::span<const std::byte> bytes_;
  const std::filesystem::path& file_;
  size_t position_ = 0;
};

}  // namespace graft
