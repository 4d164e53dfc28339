// Where two tokenisations of one text meet: the spans of tokens that cover the same bytes.
//
// A teacher with another tokenizer speaks of other tokens; of a span both speak: its probability is the product of its tokens' probabilities (chain rule), on either side.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace graft {

struct AlignedSpan {
  int64_t student_first = 0, student_count = 0;   // tokens
  int64_t teacher_first = 0, teacher_count = 0;
  bool operator==(const AlignedSpan&) const = default;
};

// The smallest spans, in order: each ends where a student's and a teacher's token end together. ends: byte offset behind each token, ascending (tokens of no bytes
// belong to the span before them; at the start of the text, to the first). UserError when the texts have different lengths, or ends go back.
std::vector<AlignedSpan> align_tokens(std::span<const int64_t> student_ends, std::span<const int64_t> teacher_ends);

}  // namespace graft
