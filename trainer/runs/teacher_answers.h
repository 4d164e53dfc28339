// Sequence-level distillation (Kim and Rush 2016, arXiv 1606.07947): the teacher writes answers to the rows' prompts, in its own template and tokenizer, and they become the
// rows' answers: the student learns them by cross-entropy.
#pragma once
#include <vector>

#include "trainer/runs/prepared_run.h"

namespace graft {

// What decides them, but the rows. Waits for the teacher's hashes.
TeacherIdentity answers_identity(const PreparedRun& run);

// Puts the stored answers in place of rows' own, and takes out the rows whose answer the recipe does not keep (teacher.answers.keep). Rows that the store lacks stay as
// they are. UserError for rows of format text, which ask nothing.
AnswerCounts take_teacher_answers(const Recipe& recipe, const TeacherStore* store, std::vector<Row>& rows);

// Rows of train and validation that the store lacks, once each.
std::vector<const Row*> rows_without_answers(const PreparedRun& run, const TeacherStore& store);

struct WrittenAnswers {
  int64_t rows = 0, tokens = 0, finished = 0;   // finished: ended by themselves
};
// Answers them in chunks, each kept once it is done; a stop signal ends it after the last whole one. progress(rows done).
WrittenAnswers write_teacher_answers(const PreparedRun& run, TeacherStore& store, const std::vector<const Row*>& rows, const std::function<void(int64_t)>& progress);

}  // namespace graft
