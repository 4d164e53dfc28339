#pragma once
#include <string>
#include <string_view>

#include <openssl/evp.h>

namespace graft {
class Sha256 {
 public:
  static std::string hex(std::string_view bytes) {
    unsigned char digest[32];
    unsigned int size = 0;
    EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), nullptr);
    std::string text;
    for (unsigned char byte : digest) text += "0123456789abcdef"[byte >> 4], text += "0123456789abcdef"[byte & 15];
    return text;
  }
};
}  // namespace graft
