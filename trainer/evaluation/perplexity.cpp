#include "trainer/evaluation/perplexity.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <vector>

#include "data/rows/encode.h"
#include "kernels/common/error.h"
#include "trainer/models/packed_batch.h"
#include "trainer/steps/micro_batch.h"

namespace graft {
namespace {

Batch batch_of(const TokenTable& table, const std::vector<int64_t>& sequences) {
  std::vector<TokenSpan> spans;
  for (const auto sequence : sequences) spans.push_back(table.row(sequence));
  return packed_batch(spans);
}

}  // namespace

PerplexityScores evaluate_perplexity(const Decoder& decoder, const TemplateContext& context, std::span<const Row> rows,
                                     const PerplexityOptions& options) {
  const auto started = std::chrono::steady_clock::now();
  const auto limited = limit_lengths(rows, encode_rows(context, rows, 0), std::min(options.max_tokens, decoder.spec().max_positions), OverLong::kError);
  const auto& table = limited.tokens;
  std::vector<int64_t> sequences(static_cast<size_t>(table.num_rows())), lengths;
  std::iota(sequences.begin(), sequences.end(), 0);
  for (const auto sequence : sequences) {
    lengths.push_back(table.length(sequence));
    if (lengths.back() > decoder.spec().max_positions) {
      fail("evaluation", "expected rows of at most {} tokens, the model's context, got {} ({}) — shorten the row", decoder.spec().max_positions,
           lengths.back(), row_place(rows[static_cast<size_t>(limited.row_of[static_cast<size_t>(sequence)])]));
    }
  }

  PerplexityScores scores;
  scores.rows = static_cast<int64_t>(rows.size());
  scores.tokens = table.offsets.back();
  std::vector<double> loss_of_row(rows.size(), 0), targets_of_row(rows.size(), 0);
  int64_t correct = 0, done = 0;
  for (const auto& group : pack_rows(sequences, lengths, options.pack_tokens)) {
    const auto result = run_micro_batch(decoder, nullptr, batch_of(table, group), {.want_gradient = false});
    correct += result.num_correct;
    scores.supervised_tokens += result.num_supervised;
    size_t next = 0;   // losses stand in the order of the group's sequences
    for (const auto sequence : group) {
      const auto row = static_cast<size_t>(limited.row_of[static_cast<size_t>(sequence)]);
      for (auto left = count_targets(table.row(sequence).supervised); left > 0; --left) {
        loss_of_row[row] += result.losses_M[next++];
        ++targets_of_row[row];
      }
    }
    done += static_cast<int64_t>(group.size());
    if (options.progress) options.progress(done, table.num_rows());
  }
  if (scores.supervised_tokens == 0) {
    fail("evaluation", "expected rows with supervised tokens, got none in {} rows — rows need an answer, or --format text", rows.size());
  }
  scores.loss = bootstrap(scores.rows, [&](std::span<const int64_t> drawn) {
    double loss = 0, targets = 0;
    for (const auto row : drawn) {
      loss += loss_of_row[static_cast<size_t>(row)];
      targets += targets_of_row[static_cast<size_t>(row)];
    }
    return targets == 0 ? 0 : loss / targets;
  }, options.bootstrap);
  scores.perplexity = std::exp(scores.loss.value);
  scores.top1 = static_cast<double>(correct) / static_cast<double>(scores.supervised_tokens);
  scores.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return scores;
}

}  // namespace graft
