// Sequences that grow together: prompts are read in packed forwards, then each gets tokens, is cut back, or is copied. One key-value cache a
// sequence, in the decoder's own DecodeState.
//
// Letters: D sequences, N new tokens, C hidden size, V vocabulary.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "trainer/models/decoder.h"

namespace graft {

enum class Keep { kLast, kAll };   // which hidden states come back: of the last new token of each sequence that has any, or of all new tokens

class SequenceBatch {
 public:
  explicit SequenceBatch(const Decoder& decoder) : decoder_(decoder), state_(decoder.num_layers()) {}

  // Forgets everything and reads the prompts (none empty); `room` tokens more have space without moving. What all prompts begin with is
  // computed once. Normed hidden states of each prompt's last token [D, C].
  at::Tensor start(std::span<const std::vector<int32_t>> prompts, int64_t room = 0);
  // Sequence d grows by tokens[d], which may be empty. Normed hidden states in order of (sequence, token): [D with tokens, C] or [N, C].
  at::Tensor extend(std::span<const std::vector<int32_t>> tokens, Keep keep);

  size_t size() const { return state_.num_sequences(); }
  int64_t length(size_t sequence) const { return state_.length(sequence); }
  // Forgets all but the first `length` tokens of a sequence. A decoder with a recurrent state reads what is left again, from the prompt's end on where that is left.
  void cut_back(size_t sequence, int64_t length);

 private:
  // Of a sequence of a decoder that is recurrent: its tokens, and the states at one place among them, for cut_back.
  struct History {
    std::vector<int32_t> tokens;
    int64_t marked = 0;                  // length at the mark; 0: the beginning
    std::vector<DeltaState> states;      // of each layer there
  };

  void mark(size_t sequence);

  const Decoder& decoder_;
  DecodeState state_;
  std::vector<History> histories_;       // empty where nothing is recurrent
};

// Calls function(row, logits [V]) for each row in order; at most 64 MiB of logits are held at a time. function may write into the logits.
void for_each_logits(const Decoder& decoder, const at::Tensor& hidden_MC, const std::function<void(int64_t, std::span<float>)>& function);

// Those rows of the hidden states, in that order.
at::Tensor select_rows(const at::Tensor& hidden_NC, const std::vector<int64_t>& rows);

// How many of the items from `first` on fit `budget` together; at least one.
size_t count_that_fit(std::span<const int64_t> sizes, size_t first, int64_t budget);

// Tokens that both begin with.
size_t common_prefix(std::span<const int32_t> a, std::span<const int32_t> b);

}  // namespace graft
