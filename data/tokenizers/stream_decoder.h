// Text from ids that arrive one by one, as `graft chat` prints it: a character is shown when its last byte is there.
#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "data/tokenizers/tokenizer.h"

namespace graft {

// Bytes in, whole UTF-8 characters out. What can no longer become a character is U+FFFD, one for each maximal broken part
// (Unicode chapter 3, "U+FFFD substitution of maximal subparts").
class Utf8Stream {
 public:
  // All complete characters that `bytes` makes available; an unfinished one waits.
  std::string push(std::string_view bytes);
  // U+FFFD when an unfinished character was left, else nothing.
  std::string finish();

 private:
  std::string waiting_;  // at most 3 bytes: a well-formed start of a character
};

class StreamDecoder {
 public:
  // skip_special: special tokens give no text.
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special = true)
      : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}
  std::string push(int32_t id);
  std::string finish() { return stream_.finish(); }

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  bool at_start_ = true;
  Utf8Stream stream_;
};

}  // namespace graft
