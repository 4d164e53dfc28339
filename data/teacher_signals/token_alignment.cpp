#include "data/teacher_signals/token_alignment.h"

#include <algorithm>

#include "kernels/common/error.h"

namespace graft {

std::vector<AlignedSpan> align_tokens(std::span<const int64_t> student_ends, std::span<const int64_t> teacher_ends) {
  const int64_t length = student_ends.empty() ? 0 : student_ends.back(), other = teacher_ends.empty() ? 0 : teacher_ends.back();
  if (length != other) fail("teach", "expected student and teacher to read the same text, got {} and {} bytes — the two templates write different answers", length, other);
  if (!std::is_sorted(student_ends.begin(), student_ends.end()) || !std::is_sorted(teacher_ends.begin(), teacher_ends.end()))
    fail("teach", "expected tokens one after another in the text, got ends that go back");
  const auto num_students = static_cast<int64_t>(student_ends.size()), num_teachers = static_cast<int64_t>(teacher_ends.size());
  if (length == 0) return num_students + num_teachers == 0 ? std::vector<AlignedSpan>() : std::vector<AlignedSpan>{{0, num_students, 0, num_teachers}};
  std::vector<AlignedSpan> spans;
  int64_t student = 0, teacher = 0, begin = 0;
  while (begin < length) {
    const int64_t student_first = student, teacher_first = teacher;
    int64_t at_student = begin, at_teacher = begin;
    do {   // the side that is behind goes on
      if (at_student <= at_teacher) at_student = student_ends[student++];
      else at_teacher = teacher_ends[teacher++];
    } while (at_student != at_teacher || at_student == begin);
    begin = at_student;
    while (student < num_students && student_ends[student] == begin) ++student;
    while (teacher < num_teachers && teacher_ends[teacher] == begin) ++teacher;
    spans.push_back({student_first, student - student_first, teacher_first, teacher - teacher_first});
  }
  return spans;
}

}  // namespace graft
