#include "checkpoints/hash.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "kernels/common/error.h"

namespace graft {

struct Sha256::Impl {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~Impl() { EVP_MD_CTX_free(context); }
};

namespace {

void check(int result) {
  if (result != 1) throw MachineError("checkpoints", "SHA-256 of OpenSSL failed — check the installation of libcrypto");
}

}  // namespace

Sha256::Sha256() : impl_(std::make_unique<Impl>()) {
  check(impl_->context == nullptr ? 0 : EVP_DigestInit_ex(impl_->context, EVP_sha256(), nullptr));
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

Sha256& Sha256::update(std::span<const std::byte> bytes) {
  check(EVP_DigestUpdate(impl_->context, bytes.data(), bytes.size()));
  return *this;
}

Sha256& Sha256::update(std::string_view text) { return update(std::as_bytes(std::span(text))); }

std::string Sha256::finish() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  check(EVP_DigestFinal_ex(impl_->context, digest, &length));
  return hexadecimal({digest, length});
}

std::string hexadecimal(std::span<const unsigned char> bytes) {
  std::string text;
  for (const auto byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

std::string sha256(std::span<const std::byte> bytes) { return Sha256().update(bytes).finish(); }

std::string sha256(std::string_view text) { return Sha256().update(text).finish(); }

std::string sha256_file(const std::filesystem::path& path, std::stop_token stop) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0)
    fail("checkpoints", "expected a readable file, got \"{}\" ({}) — check the path and its permissions", std::strerror(errno),
         path.string());
  Sha256 hash;
  std::vector<std::byte> buffer(1 << 20);
  ssize_t got;
  while ((got = ::read(file, buffer.data(), buffer.size())) != 0) {
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int error = errno;
      ::close(file);
      throw MachineError("checkpoints",
                         fmt::format("cannot read {}: {} — check the disk", path.string(), std::strerror(error)));
    }
    hash.update(std::span(buffer).first(static_cast<size_t>(got)));
    if (stop.stop_requested()) {
      ::close(file);
      throw std::runtime_error("hashing was given up");
    }
  }
  ::close(file);
  return hash.finish();
}

}  // namespace graft
