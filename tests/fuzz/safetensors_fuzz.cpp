// libFuzzer: any bytes as a safetensors file. It is read or refused with a UserError; what is read is a tiling of the input.
#include <cstdint>
#include <cstdlib>

#include "checkpoints/safetensors_file.h"
#include "kernels/common/error.h"
#include "tests/fuzz/processor_time.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const graft::ProcessorTime limit;
  static const std::filesystem::path file = "fuzz.safetensors";
  try {
    const auto header = graft::parse_safetensors_header({reinterpret_cast<const std::byte*>(data), size}, file);
    uint64_t length = 0;
    for (int i = 0; i < 8; ++i) length |= static_cast<uint64_t>(data[i]) << 8 * i;
    const auto* expected = reinterpret_cast<const std::byte*>(data) + 8 + length;
    for (const graft::StoredTensor& tensor : header.tensors) {
      if (tensor.bytes.data() != expected) std::abort();
      expected += tensor.bytes.size();
    }
    if (expected != reinterpret_cast<const std::byte*>(data) + size) std::abort();
  } catch (const graft::UserError&) {
  }
  return 0;
}
