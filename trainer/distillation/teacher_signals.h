// What a teacher says of a batch's supervised tokens, in their order: computed beside the student, or read from a store.
#pragma once
#include <memory>

#include <ATen/core/Tensor.h>

#include "data/teacher_signals/signal_codec.h"
#include "kernels/linear_kl/linear_kl.h"

namespace graft {

struct TeacherSignals {
  // Of a teacher beside the student: normed hidden states and its head. Where one of the two heads has more rows (padding, added tokens), both end with the last
  // token that both have: then student_head is the student's.
  at::Tensor hidden_MC;
  std::shared_ptr<const HeadPieces> head, student_head;
  // Of a store; `head` is null.
  SignalRows entries;
  double temperature = 1;   // at which they were written

  Teacher view() const {
    if (head) return HiddenTeacher{hidden_MC, *head};
    return SparseTeacher{entries.num_entries, entries.ids_MK, entries.log_probabilities_MK, entries.tail_mass_M, temperature};
  }
};

}  // namespace graft
