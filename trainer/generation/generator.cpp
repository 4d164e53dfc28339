#include "trainer/generation/generator.h"

#include <algorithm>

#include "kernels/common/error.h"

namespace graft {

std::string stop_reason_name(StopReason reason) {
  switch (reason) {
    case StopReason::kStopToken: return "stop_token";
    case StopReason::kMaxTokens: return "max_tokens";
    case StopReason::kContextFull: return "context_full";
    case StopReason::kCancelled: return "cancelled";
  }
  return "unknown";
}

Generator::Generator(const Decoder& decoder, std::shared_ptr<const Tokenizer> tokenizer)
    : decoder_(decoder), tokenizer_(std::move(tokenizer)), stops_(end_tokens(*tokenizer_)) {}

bool Generator::is_stop(int32_t token) const { return std::find(stops_.begin(), stops_.end(), token) != stops_.end(); }

std::vector<Generation> Generator::generate(std::span<const std::vector<int32_t>> prompts, const GenerationOptions& options) const {
  check_sampling(options.sampling);
  std::vector<int64_t> sizes;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto length = static_cast<int64_t>(prompts[i].size());
    if (length > decoder_.spec().max_positions) {
      fail("generation", "expected prompts of at most {} tokens, the model's context, got {} (prompt {}) — shorten it", decoder_.spec().max_positions,
           length, i + 1);
    }
    sizes.push_back(length + options.max_new_tokens);
  }
  std::vector<Generation> answers;
  for (size_t first = 0; first < prompts.size();) {
    const auto group = prompts.subspan(first, count_that_fit(sizes, first, options.batch_tokens));
    SequenceBatch batch(decoder_);
    const auto hidden_DC = batch.start(group, std::min<int64_t>(options.max_new_tokens, 64));
    auto of_group = options;   // callbacks and counters see indices of all prompts
    of_group.first_row += first;
    if (!options.rows.empty()) of_group.rows.assign(options.rows.begin() + static_cast<std::ptrdiff_t>(first), options.rows.begin() + static_cast<std::ptrdiff_t>(first + group.size()));
    if (options.on_logits) of_group.on_logits = [&](size_t prompt, std::span<const float> logits) { options.on_logits(first + prompt, logits); };
    if (options.on_token) of_group.on_token = [&](size_t prompt, int32_t token) { return options.on_token(first + prompt, token); };
    if (options.progress) of_group.progress = [&](int64_t finished) { options.progress(static_cast<int64_t>(first) + finished); };
    for (auto& answer : continue_from(batch, hidden_DC, group, of_group)) answers.push_back(std::move(answer));
    first += group.size();
  }
  return answers;
}

std::vector<Generation> Generator::continue_from(SequenceBatch& batch, const at::Tensor& hidden_DC, std::span<const std::vector<int32_t>> prompts,
                                                 const GenerationOptions& options) const {
  const bool penalised = options.sampling.repetition_penalty != 1;
  std::vector<Generation> answers(prompts.size());
  std::vector<std::vector<int32_t>> next(prompts.size());
  std::vector<size_t> active(options.max_new_tokens > 0 ? prompts.size() : 0);
  for (size_t d = 0; d < active.size(); ++d) active[d] = d;
  auto hidden_AC = hidden_DC;   // of the active sequences, in order
  while (!active.empty()) {
    std::vector<size_t> unfinished;
    for_each_logits(decoder_, hidden_AC, [&](int64_t index, std::span<float> logits) {
      const size_t d = active[static_cast<size_t>(index)];
      auto& answer = answers[d];
      if (options.on_logits) options.on_logits(d, logits);
      std::vector<int32_t> seen;
      if (penalised) {
        seen = prompts[d];
        seen.insert(seen.end(), answer.ids.begin(), answer.ids.end());
      }
      const auto token = sample_token(logits, options.sampling, seen, options.rows.empty() ? options.first_row + d : options.rows[d], answer.ids.size());
      next[d].clear();
      if (is_stop(token)) {
        answer.stop = StopReason::kStopToken;
        answer.stop_token = token;
        return;
      }
      answer.ids.push_back(token);
      if (options.on_token && !options.on_token(d, token)) {
        answer.stop = StopReason::kCancelled;
      } else if (static_cast<int64_t>(answer.ids.size()) >= options.max_new_tokens) {
        answer.stop = StopReason::kMaxTokens;
      } else if (batch.length(d) >= decoder_.spec().max_positions) {
        answer.stop = StopReason::kContextFull;
      } else {
        next[d] = {token};
        unfinished.push_back(d);
      }
    });
    if (options.progress) options.progress(static_cast<int64_t>(prompts.size() - unfinished.size()));
    active = std::move(unfinished);
    if (!active.empty()) hidden_AC = batch.extend(next, Keep::kLast);
  }
  for (auto& answer : answers) answer.text = tokenizer_->decode(answer.ids, /*skip_special=*/true);
  return answers;
}

}  // namespace graft
