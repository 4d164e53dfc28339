// A distillation's teacher: its files, its weights or what it said before, and the check that it reads the rows as the student does.
#pragma once
#include <filesystem>

#include "trainer/runs/prepared_run.h"

namespace graft {

// Where token and teacher stores of a run lie: run.cache, or beside the run.
std::filesystem::path store_folder(const Recipe& recipe);

// With objective.kind distill fills what PreparedRun has of a teacher; student, adapters and tokenizer are there. UserError where its tokens are not the student's.
void take_teacher(PreparedRun& run, const PrepareOptions& options);

// Hex SHA-256 over its files, adapter and forms. Waits for their hashes.
std::string teacher_weights_hash(const PreparedRun& run);
// What decides its signals. Waits for the same.
TeacherIdentity teacher_identity(const PreparedRun& run);

// "self", the name of its file or folder, or of a server's model.
std::string teacher_name(const PreparedRun& run);
// What its files state of its licence, or the recipe of a server's model; and the first of it, or "unknown".
std::vector<std::string> teacher_licences(const PreparedRun& run);
std::string teacher_licence(const PreparedRun& run);

// Sequences of a split that the store lacks; all of them where there is none.
std::vector<int64_t> missing_signals(const PreparedRun& run, const TeacherStore* store, const DatasetSplit& split);

// Teacher and student on some of the first step's supervised tokens, before anything is trained.
struct TeacherCheck {
  int64_t tokens = 0;
  double agreement = 0;              // share of tokens where both have the same likeliest token
  double teacher_loss = 0;           // mean negative log-likelihood of the rows' own tokens
  double shifted_loss = 0;           // the same of each token's successor among them: what a teacher says that reads other rows or positions
  double divergence = 0;             // the objective's
  double hidden_state_loss = 0;      // where hidden states are matched
  int64_t spans = 0;                 // of a teacher with another tokenizer: then neither agreement nor shifted_loss
  std::string problem() const;       // why this cannot be right; else empty
  std::string note() const;          // that it is doubtful
};
TeacherCheck check_teacher(const PreparedRun& run);

}  // namespace graft
