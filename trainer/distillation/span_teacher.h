// A teacher with another tokenizer. It reads the same conversation in its own template and tokens. Where tokens of both sides end together, both speak of a span of the answer's
// text, whose probability is the product of its tokens' (chain rule), p the teacher's and q the student's. What is minimised is the divergence of "exactly this span" and "anything else":
//
//   D = p log(p / q) + (1 - p) log((1 - p) / (1 - q)),      dD / d log q = (q - p) / (1 - q)
//
// approximate likelihood matching (Minixhofer, Vulic and Ponti 2025, arXiv 2503.20083). What ends a turn is a span of its own on both sides. No id of one side reaches the other.
#pragma once
#include <cstdint>
#include <vector>

#include "data/rows/dataset.h"
#include "data/rows/packing.h"
#include "data/teacher_signals/token_alignment.h"
#include "trainer/distillation/teacher_model.h"

namespace graft {

// The answers of a row as both sides read them.
struct RowSpans {
  std::vector<int32_t> teacher_ids;
  std::vector<uint8_t> teacher_supervised;
  std::vector<AlignedSpan> spans;   // among the supervised tokens of either side that something predicts, in their order
};

// UserError that names the row: an answer that the two templates write differently, or whose first token a tokenizer merges with what stands before it; a row that was cut.
RowSpans align_row(const TemplateContext& student, const TemplateContext& teacher, const Row& row, const TokenSpan& student_row);

class SpanTeacher {
 public:
  explicit SpanTeacher(const TeacherOptions& options);

  // Of rows that lie in a batch one after another: `rows` as the student reads them, `sources` what they were made of.
  TeacherSignals signals(const TemplateContext& student, const std::vector<TokenSpan>& rows, const std::vector<const Row*>& sources) const;

  void set_device(c10::Device device);
  const LoadedModel& loaded() const { return loaded_; }
  int64_t num_bytes() const { return bytes_of_weights(loaded_); }

 private:
  LoadedModel loaded_;
};

}  // namespace graft
