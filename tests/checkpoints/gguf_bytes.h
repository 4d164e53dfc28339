// GGUF files built field by field, so that a test can damage any one of them.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace graft::test {

template <typename Number>
std::string little_endian(Number value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

inline std::string gguf_text(std::string_view text) { return little_endian<uint64_t>(text.size()) + std::string(text); }

template <typename Number>
std::string gguf_entry(std::string_view key, int32_t type, Number value) {
  return gguf_text(key) + little_endian(type) + little_endian(value);
}
inline std::string gguf_text_entry(std::string_view key, std::string_view value) {
  return gguf_text(key) + little_endian<int32_t>(8) + gguf_text(value);
}
inline std::string gguf_array_entry(std::string_view key, int32_t element_type, uint64_t count, std::string_view elements) {
  return gguf_text(key) + little_endian<int32_t>(9) + little_endian(element_type) + little_endian(count) +
         std::string(elements);
}

struct GgufTensorBytes {
  std::string name;
  std::vector<int64_t> ne;  // innermost first
  int32_t type = 0;
  uint64_t offset = 0;
};

struct GgufBytes {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::vector<std::string> entries = {gguf_text_entry("general.architecture", "llama"),
                                      gguf_entry<uint32_t>("llama.block_count", 4, 2)};
  std::vector<GgufTensorBytes> tensors = {{"a.weight", {64, 2}, 3, 0},
                                          {"b.weight", {4}, 0, 96}};  // 80 bytes Q4_1, padding, 16 bytes
  uint64_t data_bytes = 112;
  // What is written for the two counts, where it shall differ from the truth.
  uint64_t num_tensors = ~uint64_t{0}, num_entries = ~uint64_t{0};
  uint64_t alignment = 32;

  std::string text() const {
    std::string out = magic + little_endian(version) +
                      little_endian(num_tensors == ~uint64_t{0} ? tensors.size() : num_tensors) +
                      little_endian(num_entries == ~uint64_t{0} ? entries.size() : num_entries);
    for (const std::string& entry : entries) out += entry;
    for (const GgufTensorBytes& tensor : tensors) {
      out += gguf_text(tensor.name) + little_endian<uint32_t>(static_cast<uint32_t>(tensor.ne.size()));
      for (const int64_t dimension : tensor.ne) out += little_endian(dimension);
      out += little_endian(tensor.type) + little_endian(tensor.offset);
    }
    out.resize((out.size() + alignment - 1) / alignment * alignment, '\0');
    for (uint64_t i = 0; i < data_bytes; ++i) out += static_cast<char>(i);
    return out;
  }
};

}  // namespace graft::test
