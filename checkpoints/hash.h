// SHA-256 (FIPS 180-4) as 64 lower-case hexadecimal digits.
#pragma once
#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>

namespace graft {

// Two lower-case digits for each byte.
std::string hexadecimal(std::span<const unsigned char> bytes);

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  Sha256& update(std::span<const std::byte> bytes);
  Sha256& update(std::string_view text);
  std::string finish();  // ends the object's use: one digest per object

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

std::string sha256(std::span<const std::byte> bytes);
std::string sha256(std::string_view text);

// Reads the file in pieces of 1 MiB. UserError when it cannot be opened, MachineError when reading fails, std::runtime_error once `stop` is asked for.
std::string sha256_file(const std::filesystem::path& path, std::stop_token stop = {});

}  // namespace graft
