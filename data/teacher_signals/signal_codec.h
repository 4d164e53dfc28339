// What a teacher says of the next token, for every supervised token of a row, in few bytes. A row's tokens lie one after another and are read together.
//
//   top     the k likeliest tokens with their probabilities, and the mass of all others
//   drawn   how often each token came up in `draws` draws from the teacher's distribution: count / draws is an unbiased target of forward KL
//           (random sampling, arXiv 2503.16870), where the likeliest tokens alone are biased
//
// Bits: ids ascending, as their gaps in Rice code (parameter from vocabulary and number of ids: log2(e V / k) and a little each, where a plain id takes log2 V);
//   top    of each entry how far it is below the likeliest, d = log p_max - log p, in 8 bits as sqrt(d / 24) (beyond 24 nats: 24), then log(tail) in 16 bits.
//          p_max = (1 - tail) / sum exp(-d): entries and tail sum to 1 exactly, whatever was rounded.
//   drawn  the number of distinct ids, and their counts but the last in Elias' gamma code; the last is what is missing to `draws`.
// At a vocabulary of 152k: 172 bytes for the top 64; about 29 for 50 draws that fall on 12 tokens.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "data/teacher_signals/bits.h"

namespace graft {

struct SignalForm {
  enum class Kind { kTop, kDrawn };
  Kind kind = Kind::kDrawn;
  int64_t num_entries = 50;   // top: k, 1 .. vocab_size - 1; drawn: draws, 1 .. 65,535
  int64_t vocab_size = 0;     // ids are below it; at most 2^24
};

// Rows of entries, as kernels/linear_kl takes them: [tokens, K] with -1 where a token has fewer.
struct SignalRows {
  int64_t num_entries = 0;                  // K
  std::vector<int32_t> ids_MK;
  std::vector<float> log_probabilities_MK;
  std::vector<float> tail_mass_M;           // 0 of draws
};

class SignalEncoder {
 public:
  explicit SignalEncoder(const SignalForm& form) : form_(form) {}
  // A token's k likeliest, in any order; their mass and `tail_mass` are 1 together (divided by their sum, which must be 1 to a hundredth).
  void add_top(std::span<const int32_t> ids, std::span<const float> log_probabilities, double tail_mass);
  // A token's draws, in any order, ids as often as they came up.
  void add_drawn(std::span<const int32_t> ids);
  int64_t num_tokens() const { return num_tokens_; }
  std::vector<std::byte> take();            // of all tokens since the last take()

 private:
  void put_ids(std::span<const int32_t> sorted);

  SignalForm form_;
  BitWriter bits_;
  int64_t num_tokens_ = 0;
};

// Appends the tokens of a row. UserError, naming `where`, for bytes that no encoder of this form wrote: cut off, too long, an id beyond the vocabulary.
void decode_signals(const SignalForm& form, std::span<const std::byte> bytes, int64_t num_tokens, std::string_view where, SignalRows& rows);

}  // namespace graft
