// What a teacher says of a batch's taught tokens, in their order: computed beside the student, or read from a store.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "data/teacher_signals/signal_codec.h"
#include "kernels/linear_kl/linear_kl.h"

namespace graft {

// Of a teacher with another tokenizer (span_teacher.h): what it gives the text of some of the student's supervised tokens.
struct SpanTarget {
  int64_t first = 0, count = 0;   // among the batch's supervised tokens
  double log_probability = 0;
};

struct TeacherSignals {
  // Of a teacher beside the student: normed hidden states and its head. Where one of the two heads has more rows (padding, added tokens), both end with the last
  // token that both have: then student_head is the student's.
  at::Tensor hidden_MC;
  std::shared_ptr<const HeadPieces> head, student_head;
  std::vector<at::Tensor> states_MC;   // its residual stream after the layers that the student's are matched to (hidden_matching.h), of each pair
  // Of a store; `head` is null.
  SignalRows entries;
  double temperature = 1;   // at which they were written
  bool by_spans = false;    // then these alone
  std::vector<SpanTarget> spans;

  Teacher view() const {
    if (head) return HiddenTeacher{hidden_MC, *head};
    return SparseTeacher{entries.num_entries, entries.ids_MK, entries.log_probabilities_MK, entries.tail_mass_M, temperature};
  }
};

}  // namespace graft
