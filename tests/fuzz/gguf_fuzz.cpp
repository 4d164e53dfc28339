// libFuzzer: any bytes as a GGUF file. It is read or refused with a UserError; what is read has its bytes inside the input.
#include <cstdint>
#include <vector>

#include "checkpoints/gguf_header.h"
#include "kernels/common/error.h"
#include "kernels/quantized/dequantize.h"
#include "tests/fuzz/processor_time.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const graft::ProcessorTime limit;
  static const std::filesystem::path file = "fuzz.gguf";
  try {
    const auto header = graft::parse_gguf_header({reinterpret_cast<const std::byte*>(data), size}, file);
    std::vector<float> row;
    for (const graft::StoredTensor& tensor : header.tensors) {
      // Reads the first and the last block: AddressSanitizer sees a span that leaves the input.
      const auto& layout = graft::info(tensor.type);
      row.resize(static_cast<size_t>(layout.block_elements));
      for (const auto block : {tensor.bytes.first(static_cast<size_t>(layout.block_bytes)),
                               tensor.bytes.last(static_cast<size_t>(layout.block_bytes))}) {
        try {
          graft::dequantize(tensor.type, block.data(), layout.block_elements, row.data());
        } catch (const graft::UserError&) {  // integers
        }
      }
    }
  } catch (const graft::UserError&) {
  }
  return 0;
}
