// Which of a teacher's tokens are which of a student's.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/tokenizers/tokenizer.h"

namespace graft {

struct VocabularyMatch {
  // kSame: every id means the same text. kSameStart: so do the ids that both have, and one has more at its end (reserved or added tokens). kDifferent: ids mean
  // other texts, and a teacher's id must never reach the student.
  enum class Kind { kSame, kSameStart, kDifferent };
  Kind kind = Kind::kDifferent;
  std::vector<int32_t> student_of_teacher;   // by text, for every id of the teacher; -1: the student has no such token
  int64_t num_shared = 0;
  std::string difference;                    // the first, in words; empty when they are the same
};

// Special tokens match special ones only. Of tokens with the same bytes the lowest id counts, but an id that is the same on both sides stays.
VocabularyMatch match_vocabularies(const Tokenizer& student, const Tokenizer& teacher);

}  // namespace graft
