// Rows to token ids and masks, in parallel; and what data.max_tokens does with rows that are longer.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/rows/dataset.h"
#include "data/rows/token_table.h"
#include "data/templates/conversation.h"

namespace graft {

// One row, whole. Conversations: encode_conversation. Prompts: encode_prompt, nothing supervised. Text: every token supervised,
// BOS/EOS as the tokenizer adds them, and EOS at the end of the document where the tokenizer has one. Errors: as
// encode_conversation.
EncodedText encode_row(const TemplateContext& context, const Row& row);

// All rows, on `threads` threads (0: as the machine has), in order whatever the threads. progress(rows done) is called on this
// thread. Throws one UserError that lists up to 20 rows that cannot be encoded, as `file:line: reason`.
TokenTable encode_rows(const TemplateContext& context, std::span<const Row> rows, int threads,
                       const std::function<void(int64_t)>& progress = {});

// [begin, end) windows of a document: each has max_tokens tokens, the last one the rest. A window begins with the last token of
// the one before, so that each token but the document's first is a target exactly once. length >= 1; max_tokens >= 2.
std::vector<std::pair<int64_t, int64_t>> document_windows(int64_t length, int64_t max_tokens);
std::vector<std::vector<int32_t>> split_document(const std::vector<int32_t>& ids, int64_t max_tokens);

enum class OverLong { kError, kTruncate, kDrop };
// "error", "truncate" or "drop"; throws UserError otherwise.
OverLong over_long_of(const std::string& name);

struct OverLongRow {
  int64_t row = 0, length = 0;
};

// What is trained on: one sequence per row, or per window of a document.
struct Sequences {
  TokenTable tokens;
  std::vector<int64_t> row_of;           // per sequence: index of its row
  std::vector<OverLongRow> over_long;    // conversations and prompts longer than max_tokens, whatever the policy did
  std::vector<int64_t> cut_documents;    // rows of format text that became several windows
  std::vector<int64_t> without_targets;  // rows that are no prompts and have nothing to learn from (after truncation)
};

// kError keeps over-long rows whole (they are listed; the caller refuses the run), kTruncate keeps the first max_tokens, kDrop
// leaves them out.
Sequences limit_lengths(std::span<const Row> rows, const TokenTable& encoded, int64_t max_tokens, OverLong over_long);

}  // namespace graft
