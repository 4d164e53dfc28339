#include "data/tokenizers/stream_decoder.h"

#include "data/tokenizers/utf8.h"

namespace graft {
namespace {

// How many bytes at the front of `bytes` (which start no complete character) could still begin one: 0 for a stray byte,
// otherwise the length of the longest well-formed start.
size_t started_character(std::string_view bytes) {
  // Every well-formed start can be completed by some of these continuation bytes.
  for (size_t length = std::min<size_t>(bytes.size(), 3); length > 0; --length) {
    for (const char* filler : {"\x80\x80\x80", "\x90\x80\x80", "\xA0\x80\x80"}) {
      std::string attempt(bytes.substr(0, length));
      const auto lead = static_cast<unsigned char>(bytes[0]);
      const size_t whole = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
      if (length >= whole) break;
      attempt.append(filler, whole - length);
      if (decode_utf8(attempt, 0).length == whole) return length;
    }
  }
  return 0;
}

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  waiting_ += bytes;
  std::string text;
  size_t position = 0;
  while (position < waiting_.size()) {
    const Utf8Char next = decode_utf8(waiting_, position);
    if (next.code != kInvalidUtf8) {
      text.append(waiting_, position, next.length);
      position += next.length;
      continue;
    }
    const size_t started = started_character(std::string_view(waiting_).substr(position));
    if (started == waiting_.size() - position) break;  // may still be completed (started > 0 here)
    text += "\xEF\xBF\xBD";
    position += std::max<size_t>(started, 1);
  }
  waiting_.erase(0, position);
  return text;
}

std::string Utf8Stream::finish() {
  if (waiting_.empty()) return "";
  waiting_.clear();
  return "\xEF\xBF\xBD";
}

std::string StreamDecoder::push(int32_t id) {
  if (skip_special_ && tokenizer_->is_special(id)) return "";
  std::string bytes = tokenizer_->token_bytes(id);
  if (tokenizer_->drops_first_space && at_start_ && bytes.starts_with(' ')) bytes.erase(0, 1);
  at_start_ = false;
  return stream_.push(bytes);
}

}  // namespace graft
