#include "trainer/distillation/span_teacher.h"

#include <algorithm>

#include "kernels/common/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "trainer/models/packed_batch.h"

namespace graft {
namespace {

// One answer of a conversation: its supervised tokens, those of its text and behind them what ends the turn.
struct Answer {
  int64_t first = 0;            // among the row's supervised tokens
  std::string text;
  std::vector<int64_t> ends;    // byte offset behind each token of the text
  int64_t num_end_tokens = 0;
};

std::vector<Answer> answers_of(const Tokenizer& tokenizer, std::span<const int32_t> ids, std::span<const uint8_t> supervised) {
  std::vector<Answer> answers;
  int64_t count = 0;
  for (size_t i = 1; i < ids.size(); ++i) {   // nothing predicts the first
    if (!supervised[i]) continue;
    const bool begins = !supervised[i - 1] || answers.empty();
    if (begins) answers.push_back({count, {}, {}, 0});
    ++count;
    auto& answer = answers.back();
    if (tokenizer.is_special(ids[i])) {
      ++answer.num_end_tokens;
    } else {
      answer.text += tokenizer.token_bytes(ids[i]);
      answer.ends.push_back(static_cast<int64_t>(answer.text.size()));
    }
  }
  return answers;
}

// A tokenizer may have put a space before the first word.
void drop_first_space(Answer& answer) {
  if (!answer.text.starts_with(' ')) return;
  answer.text.erase(0, 1);
  for (auto& end : answer.ends) end = std::max<int64_t>(0, end - 1);
}

// Behind `shift` supervised tokens of either side.
AlignedSpan moved(AlignedSpan span, int64_t student, int64_t teacher) {
  span.student_first += student;
  span.teacher_first += teacher;
  return span;
}

std::vector<uint8_t> plain(std::span<const uint8_t> values) { return {values.begin(), values.end()}; }

}  // namespace

RowSpans align_row(const TemplateContext& student, const TemplateContext& teacher, const Row& row, const TokenSpan& student_row) {
  if (row.kind != RowKind::kConversation) fail("teach", "expected conversations with a teacher of another tokenizer, got a row without an answer ({}) — leave it out", row_place(row));
  const auto whole = encode_conversation(student, row.json);
  if (whole.ids.size() != student_row.ids.size()) {
    fail("teach", "expected whole rows with a teacher of another tokenizer, got one cut to {} of {} tokens ({}) — raise data.max_tokens, or drop over-long rows", student_row.ids.size(), whole.ids.size(),
         row_place(row));
  }
  const auto theirs = encode_conversation(teacher, row.json);
  RowSpans aligned{theirs.ids, theirs.supervised, {}};
  auto ours_answers = answers_of(*student.tokenizer, student_row.ids, plain(student_row.supervised)), their_answers = answers_of(*teacher.tokenizer, theirs.ids, theirs.supervised);
  if (ours_answers.size() != their_answers.size()) {
    fail("teach", "expected student and teacher to learn the same answers, got {} and {} of them ({}) — do both templates mark the assistant's turns?", ours_answers.size(), their_answers.size(), row_place(row));
  }
  for (size_t i = 0; i < ours_answers.size(); ++i) {
    auto &ours = ours_answers[i], &other = their_answers[i];
    if (ours.text != other.text) {
      drop_first_space(ours);
      drop_first_space(other);
    }
    if (ours.text != other.text) {
      fail("teach", "expected student and teacher to read the same answer, got {} and {} bytes ({}) — the two templates write it differently, or a tokenizer merges its first token with what stands before it",
           ours.text.size(), other.text.size(), row_place(row));
    }
    for (const auto& span : align_tokens(ours.ends, other.ends)) {
      if (span.student_count > 0 && span.teacher_count > 0) aligned.spans.push_back(moved(span, ours.first, other.first));
    }
    if (ours.num_end_tokens == 0 || other.num_end_tokens == 0) continue;
    aligned.spans.push_back({ours.first + static_cast<int64_t>(ours.ends.size()), ours.num_end_tokens, other.first + static_cast<int64_t>(other.ends.size()), other.num_end_tokens});
  }
  return aligned;
}

SpanTeacher::SpanTeacher(const TeacherOptions& options) : loaded_(load_teacher(options)) {
  if (!loaded_.context.chat_template) fail("teach", "expected a teacher with a chat template, got none ({}) — it must read the conversations itself", loaded_.files.base.filename().string());
}

TeacherSignals SpanTeacher::signals(const TemplateContext& student, const std::vector<TokenSpan>& rows, const std::vector<const Row*>& sources) const {
  std::vector<RowSpans> aligned;
  std::vector<TokenSpan> theirs;
  for (size_t i = 0; i < rows.size(); ++i) aligned.push_back(align_row(student, loaded_.context, *sources[i], rows[i]));
  for (const auto& row : aligned) theirs.push_back({row.teacher_ids, row.teacher_supervised, 1});
  const auto batch = packed_batch(theirs);
  CrossEntropyOptions options;
  options.want_gradient = false;
  const auto losses = linear_cross_entropy(taught_hidden(*loaded_.decoder, batch), WholeHead(loaded_.decoder->head()), supervised_labels(batch), {}, options).losses_M;
  TeacherSignals signals;
  signals.by_spans = true;
  int64_t first_of_student = 0, first_of_teacher = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    for (const auto& span : aligned[i].spans) {
      SpanTarget target{first_of_student + span.student_first, span.student_count, 0};
      for (int64_t token = 0; token < span.teacher_count; ++token) target.log_probability -= losses[static_cast<size_t>(first_of_teacher + span.teacher_first + token)];
      signals.spans.push_back(target);
    }
    first_of_student += count_targets(rows[i].supervised);
    first_of_teacher += count_targets(aligned[i].teacher_supervised);
  }
  return signals;
}

void SpanTeacher::set_device(c10::Device device) {
  loaded_.decoder->set_device(device);
  if (loaded_.adapters) loaded_.adapters->set_device(device);
  if (loaded_.served) loaded_.served->update();
}

}  // namespace graft
