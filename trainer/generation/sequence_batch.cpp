#include "trainer/generation/sequence_batch.h"

#include <algorithm>

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>

#include "kernels/common/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace graft {
namespace {

constexpr int64_t kForwardTokens = 2048;            // activations of one forward; longer input is read in pieces
constexpr int64_t kLogitsBytes = int64_t{64} << 20;
constexpr size_t kWorthSharing = 4;                 // a shorter common prefix is not worth a forward of its own

}  // namespace

at::Tensor select_rows(const at::Tensor& hidden_NC, const std::vector<int64_t>& rows) {
  auto index = at::empty({static_cast<int64_t>(rows.size())}, at::kLong);
  std::copy(rows.begin(), rows.end(), index.data_ptr<int64_t>());
  return at::index_select(hidden_NC, 0, index.to(hidden_NC.device()));
}

size_t common_prefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t shorter = std::min(a.size(), b.size());
  size_t common = 0;
  while (common < shorter && a[common] == b[common]) ++common;
  return common;
}

size_t count_that_fit(std::span<const int64_t> sizes, size_t first, int64_t budget) {
  size_t count = 0;
  for (int64_t sum = 0; first + count < sizes.size(); ++count) {
    sum += sizes[first + count];
    if (sum > budget && count > 0) break;
  }
  return count;
}

void SequenceBatch::mark(size_t sequence) {
  auto& history = histories_[sequence];
  history.marked = length(sequence);
  history.states.clear();
  for (const auto& layer : state_.layers) history.states.push_back(layer[sequence].delta);
}

void SequenceBatch::cut_back(size_t sequence, int64_t length) {
  if (length >= this->length(sequence)) return;
  const bool from_mark = !histories_.empty() && histories_[sequence].marked <= length;
  const int64_t kept = histories_.empty() ? length : from_mark ? histories_[sequence].marked : 0;
  for (size_t layer = 0; layer < state_.layers.size(); ++layer) {
    auto& state = state_.layers[layer].at(sequence);
    state.keys_values.length = std::min(state.keys_values.length, kept);
    if (!histories_.empty()) state.delta = from_mark && kept > 0 ? histories_[sequence].states[layer] : DeltaState();
  }
  if (kept == length) {
    if (!histories_.empty()) histories_[sequence].tokens.resize(static_cast<size_t>(length));
    return;
  }
  auto& tokens = histories_[sequence].tokens;
  std::vector<std::vector<int32_t>> again(size());
  again[sequence].assign(tokens.begin() + static_cast<std::ptrdiff_t>(kept), tokens.begin() + static_cast<std::ptrdiff_t>(length));
  tokens.resize(static_cast<size_t>(kept));
  extend(again, Keep::kLast);
  if (!from_mark) mark(sequence);
}

at::Tensor SequenceBatch::start(std::span<const std::vector<int32_t>> prompts, int64_t room) {
  if (prompts.empty()) fail("generation", "expected at least one prompt, got none");
  size_t shared = prompts[0].size();
  for (const auto& prompt : prompts) {
    if (prompt.empty()) fail("generation", "expected prompts of at least one token, got an empty one — give it some text");
    // Each prompt keeps a token of its own: its hidden state is wanted.
    shared = std::min({shared, common_prefix(prompts[0], prompt), prompt.size() - 1});
  }
  if (prompts.size() == 1 || shared < kWorthSharing) shared = 0;
  state_ = DecodeState(decoder_.num_layers(), shared > 0 ? 1 : prompts.size());
  histories_.assign(decoder_.spec().is_recurrent() ? state_.num_sequences() : 0, {});
  if (shared > 0) {
    const std::vector<int32_t> prefix(prompts[0].begin(), prompts[0].begin() + static_cast<std::ptrdiff_t>(shared));
    extend(std::span(&prefix, 1), Keep::kLast);
    state_.select(std::vector<size_t>(prompts.size(), 0));
    if (!histories_.empty()) histories_.assign(prompts.size(), History(histories_[0]));
  }
  std::vector<std::vector<int32_t>> rest;
  for (size_t d = 0; d < prompts.size(); ++d) {
    state_.reserve(d, static_cast<int64_t>(prompts[d].size()) + room);
    rest.emplace_back(prompts[d].begin() + static_cast<std::ptrdiff_t>(shared), prompts[d].end());
  }
  const auto hidden_DC = extend(rest, Keep::kLast);
  for (size_t d = 0; d < histories_.size(); ++d) mark(d);
  return hidden_DC;
}

at::Tensor SequenceBatch::extend(std::span<const std::vector<int32_t>> tokens, Keep keep) {
  if (tokens.size() != size()) fail("generation", "expected tokens for {} sequences, got {}", size(), tokens.size());
  for (size_t d = 0; d < histories_.size(); ++d) histories_[d].tokens.insert(histories_[d].tokens.end(), tokens[d].begin(), tokens[d].end());
  std::vector<at::Tensor> parts;
  std::vector<size_t> done(tokens.size(), 0);
  for (size_t first = 0; first < tokens.size();) {
    // One forward: as many tokens as fit, from sequence `first` on; the others have none.
    Batch batch;
    batch.document_offsets.push_back(0);
    std::vector<int64_t> wanted;
    for (size_t d = 0; d < tokens.size(); ++d) {
      const int64_t space = d < first ? 0 : kForwardTokens - batch.num_tokens();
      const auto count = std::min<size_t>(tokens[d].size() - done[d], static_cast<size_t>(space));
      const auto begin = tokens[d].begin() + static_cast<std::ptrdiff_t>(done[d]);
      batch.add_document({begin, begin + static_cast<std::ptrdiff_t>(count)}, static_cast<int32_t>(length(d)));
      done[d] += count;
      for (size_t i = 0; i < count; ++i) {
        const bool last = i + 1 == count && done[d] == tokens[d].size();
        if (keep == Keep::kAll || last) wanted.push_back(batch.num_tokens() - static_cast<int64_t>(count - i));
      }
    }
    while (first < tokens.size() && done[first] == tokens[first].size()) ++first;
    if (batch.num_tokens() == 0) break;
    const auto hidden_NC = decoder_.forward(batch, &state_);
    if (!wanted.empty()) parts.push_back(static_cast<int64_t>(wanted.size()) == batch.num_tokens() ? hidden_NC : select_rows(hidden_NC, wanted));
  }
  if (parts.empty()) fail("generation", "expected new tokens for at least one sequence, got none");
  return parts.size() == 1 ? parts[0] : at::cat(parts, 0);
}

void for_each_logits(const Decoder& decoder, const at::Tensor& hidden_MC, const std::function<void(int64_t, std::span<float>)>& function) {
  const int64_t vocab = decoder.head().rows(), block = std::max<int64_t>(1, kLogitsBytes / 4 / vocab);
  for (int64_t first = 0; first < hidden_MC.size(0); first += block) {
    const int64_t count = std::min(block, hidden_MC.size(0) - first);
    auto logits_BV = head_logits(hidden_MC.narrow(0, first, count), decoder.head()).cpu();
    for (int64_t b = 0; b < count; ++b) function(first + b, {logits_BV.data_ptr<float>() + b * vocab, static_cast<size_t>(vocab)});
  }
}

}  // namespace graft
