// A stream of bits, the least significant of each byte first.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace graft {

class BitWriter {
 public:
  void put(uint64_t value, int count) {   // the lowest `count` bits, at most 57
    pending_ |= value << num_pending_;
    for (num_pending_ += count; num_pending_ >= 8; num_pending_ -= 8, pending_ >>= 8) bytes_.push_back(static_cast<std::byte>(pending_));
  }
  void put_unary(uint64_t value) {        // as many ones, and a zero
    for (; value >= 32; value -= 32) put(0xFFFFFFFF, 32);
    put((uint64_t{1} << value) - 1, static_cast<int>(value) + 1);
  }
  void put_rice(uint64_t value, int parameter) {   // Rice 1971: value >> parameter in unary, the rest in `parameter` bits
    put_unary(value >> parameter);
    put(value & ((uint64_t{1} << parameter) - 1), parameter);
  }
  void put_gamma(uint64_t value) {        // Elias 1975, of 1 and more: its number of bits in unary, then all but the first
    const int bits = std::bit_width(value) - 1;
    put_unary(static_cast<uint64_t>(bits));
    put(value & ((uint64_t{1} << bits) - 1), bits);
  }
  int64_t num_bits() const { return static_cast<int64_t>(bytes_.size()) * 8 + num_pending_; }
  std::vector<std::byte> take() {         // whole bytes, filled up with zeros
    if (num_pending_ > 0) put(0, 8 - num_pending_);
    return std::move(bytes_);
  }

 private:
  std::vector<std::byte> bytes_;
  uint64_t pending_ = 0;
  int num_pending_ = 0;
};

// Beyond the end it reads zeros and failed() is true: callers look once, after what they read.
class BitReader {
 public:
  explicit BitReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  uint64_t get(int count) {               // at most 57
    while (num_pending_ < count) {
      if (next_ == bytes_.size()) failed_ = true;
      pending_ |= (next_ < bytes_.size() ? static_cast<uint64_t>(bytes_[next_++]) : 0) << num_pending_;
      num_pending_ += 8;
    }
    const uint64_t value = pending_ & ((uint64_t{1} << count) - 1);
    pending_ >>= count;
    num_pending_ -= count;
    return value;
  }
  uint64_t get_unary(uint64_t most) {     // failed() above `most`
    uint64_t value = 0;
    while (!failed_ && get(1) == 1) {
      if (++value > most) failed_ = true;
    }
    return value;
  }
  uint64_t get_rice(int parameter, uint64_t most) {
    const uint64_t high = get_unary(most >> parameter);
    return high << parameter | get(parameter);
  }
  uint64_t get_gamma() {
    const int bits = static_cast<int>(get_unary(40));
    return failed_ ? 1 : uint64_t{1} << bits | get(bits);
  }
  bool failed() const { return failed_; }
  // Everything was read but the zeros that fill up the last byte.
  bool at_end() const { return !failed_ && next_ == bytes_.size() && num_pending_ < 8 && pending_ == 0; }

 private:
  std::span<const std::byte> bytes_;
  size_t next_ = 0;
  uint64_t pending_ = 0;
  int num_pending_ = 0;
  bool failed_ = false;
};

}  // namespace graft
