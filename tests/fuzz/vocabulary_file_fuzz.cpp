// libFuzzer: a sentencepiece or tiktoken file; its last 64 bytes are also the text. Whatever loads encodes, decodes and is written again.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "checkpoints/gguf_file.h"
#include "data/tokenizers/tokenizer_sources.h"
#include "kernels/common/error.h"
#include "tests/fuzz/processor_time.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const graft::ProcessorTime limit;
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  const std::string_view text = file.substr(size > 64 ? size - 64 : 0);
  try {
    const bool tiktoken = graft::is_tiktoken_file(file);
    graft::TokenizerParts parts = tiktoken ? graft::read_tiktoken_file(file, "fuzz.tiktoken") : graft::read_sentencepiece_model(file, "fuzz.model");
    if (tiktoken) parts.split_rules = {{.kind = graft::SplitRule::Kind::kByteLevel, .use_regex = false}};
    const auto tokenizer = graft::make_tokenizer(std::move(parts));
    const auto ids = tokenizer->encode(text, true);
    for (const int32_t id : ids) {
      if (id < 0 || id >= tokenizer->vocab_size()) std::abort();
      tokenizer->token_bytes(id);
    }
    tokenizer->decode(ids, true);
    (void)tokenizer->to_tokenizer_json();
    (void)tokenizer->to_gguf_metadata();
  } catch (const graft::UserError&) {
  }
  return 0;
}
