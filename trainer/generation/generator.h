// Answers to prompts: packed prefill, then token by token for all sequences that are not finished. The batch changes no answer in float32
// beyond rounding: random numbers are keyed by (seed, row, position).
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/tokenizers/tokenizer.h"
#include "trainer/generation/sampling.h"
#include "trainer/generation/sequence_batch.h"

namespace graft {

enum class StopReason { kStopToken, kMaxTokens, kContextFull, kCancelled };
std::string stop_reason_name(StopReason reason);   // stop_token, max_tokens, context_full, cancelled

struct Generation {
  std::vector<int32_t> ids;     // without the token that ended it
  std::string text;             // of ids, special tokens left out
  StopReason stop = StopReason::kMaxTokens;
  int32_t stop_token = -1;
};

struct GenerationOptions {
  SamplingOptions sampling;
  int64_t max_new_tokens = 256;
  int64_t batch_tokens = 8192;   // prompts and answers whose keys and values are held at a time; one prompt may exceed it
  uint64_t first_row = 0;        // counter of the first prompt
  std::vector<uint64_t> rows;    // of each prompt, in place of first_row and those behind it; empty: none
  // Logits [V] of a step, before sampling. prompt: its index.
  std::function<void(size_t prompt, std::span<const float> logits)> on_logits = {};
  // Each token as it is chosen, the stop token not; false ends that answer.
  std::function<bool(size_t prompt, int32_t token)> on_token = {};
  std::function<void(int64_t finished)> progress = {};
};

class Generator {
 public:
  // Ends at the tokenizer's eos_id and stop_ids.
  Generator(const Decoder& decoder, std::shared_ptr<const Tokenizer> tokenizer);

  // In order of the prompts. UserError: an empty prompt, one longer than the model's context, sampling options out of range.
  std::vector<Generation> generate(std::span<const std::vector<int32_t>> prompts, const GenerationOptions& options) const;

  // The same from sequences that `batch` has read; hidden_DC: of each one's last token. prompts: for the repetition penalty, same order.
  // Afterwards the batch holds the answers too (all but their last token).
  std::vector<Generation> continue_from(SequenceBatch& batch, const at::Tensor& hidden_DC, std::span<const std::vector<int32_t>> prompts,
                                        const GenerationOptions& options) const;

  bool is_stop(int32_t token) const;
  const Decoder& decoder() const { return decoder_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }

 private:
  const Decoder& decoder_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<int32_t> stops_;
};

}  // namespace graft
