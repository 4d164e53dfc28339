// libFuzzer: a tokenizer.json, then behind the first byte 0 a text. Whatever loads encodes any bytes, decodes and is written again.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "checkpoints/gguf_file.h"
#include "checkpoints/strict_json.h"
#include "data/tokenizers/tokenizer_parts.h"
#include "data/tokenizers/unicode_property.h"
#include "kernels/common/error.h"
#include "tests/fuzz/processor_time.h"

// The tables that the first pattern of a process makes are no input's time.
extern "C" int LLVMFuzzerInitialize(int*, char***) {
  for (const auto* name : {"L", "N", "M", "P", "S", "Lu", "Lt", "Ll", "Lm", "Lo", "Nd", "Han"}) graft::property_for_class(name);
  graft::white_space_for_class(false);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const graft::ProcessorTime limit;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t cut = input.find('\0');
  const std::string_view file = input.substr(0, cut);
  const std::string_view text = cut == std::string_view::npos ? file : input.substr(cut + 1);
  try {
    const auto made = graft::make_tokenizer(graft::read_tokenizer_json(graft::parse_strict_json(file, "fuzz.json", "the file", 64), "fuzz.json"));
    const graft::Tokenizer& tokenizer = *made;
    const auto ids = tokenizer.encode(text, true);
    for (const int32_t id : ids) {
      if (id < 0) std::abort();
      tokenizer.token_bytes(id);
    }
    tokenizer.decode(ids, true);
    (void)tokenizer.to_tokenizer_json();
    (void)tokenizer.to_gguf_metadata();
  } catch (const graft::UserError&) {
  }
  return 0;
}
