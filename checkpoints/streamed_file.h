// What the safetensors and the GGUF writer share: a header, then each declared tensor's bytes at its place, in any order
// and each exactly once. Only the tensor at hand is in memory.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "checkpoints/atomic_file.h"

namespace graft {

class StreamedFile {
 public:
  struct Place {
    uint64_t offset = 0;  // from the file's start
    uint64_t bytes = 0;
    bool written = false;
  };

  // Takes `file_bytes` of disk and writes the header. MachineError when the disk is full.
  StreamedFile(const std::filesystem::path& path, std::string_view header, std::map<std::string, Place, std::less<>> places,
               uint64_t file_bytes);

  // std::logic_error for a name that was not declared, was written before, or has another size: a mistake of the program.
  void write(std::string_view name, std::span<const std::byte> bytes);
  void finish();  // the file gets its name; std::logic_error when a tensor was not written

 private:
  AtomicFile file_;
  std::map<std::string, Place, std::less<>> places_;
};

}  // namespace graft
