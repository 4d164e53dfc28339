#include "data/teacher_signals/vocabulary_match.h"

#include <algorithm>
#include <unordered_map>

#include <fmt/format.h>

namespace graft {
namespace {

// Special tokens apart from plain ones of the same text.
std::string key_of(const Tokenizer& tokenizer, int64_t id) {
  const auto token = static_cast<int32_t>(id);
  return (tokenizer.is_special(token) ? "s" : "p") + tokenizer.token_bytes(token);
}

}  // namespace

VocabularyMatch match_vocabularies(const Tokenizer& student, const Tokenizer& teacher) {
  VocabularyMatch match;
  const int64_t num_students = student.vocab_size(), num_teachers = teacher.vocab_size(), common = std::min(num_students, num_teachers);
  std::vector<std::string> of_student;
  std::unordered_map<std::string, int32_t> lowest;
  for (int64_t id = 0; id < num_students; ++id) {
    of_student.push_back(key_of(student, id));
    lowest.try_emplace(of_student.back(), static_cast<int32_t>(id));
  }
  bool same_start = true;
  for (int64_t id = 0; id < num_teachers; ++id) {
    const auto key = key_of(teacher, id);
    const bool same = id < common && of_student[static_cast<size_t>(id)] == key;
    if (id < common && !same && same_start) {
      same_start = false;
      match.difference = fmt::format("id {} is {:?} to the student and {:?} to the teacher", id, of_student[static_cast<size_t>(id)].substr(1), key.substr(1));
    }
    const auto found = lowest.find(key);
    match.student_of_teacher.push_back(same ? static_cast<int32_t>(id) : found == lowest.end() ? -1 : found->second);
    match.num_shared += match.student_of_teacher.back() >= 0;
  }
  if (!same_start) return match;
  match.kind = num_students == num_teachers ? VocabularyMatch::Kind::kSame : VocabularyMatch::Kind::kSameStart;
  if (num_students != num_teachers) match.difference = fmt::format("the student has {} tokens, the teacher {}; the first {} are the same", num_students, num_teachers, common);
  return match;
}

}  // namespace graft
