// On-policy distillation: the student writes answers to rows' prompts while it learns, and the teacher is followed on them, on what the student would really say
// (generalised knowledge distillation: Agarwal et al. 2023, arXiv 2306.13649).
#pragma once
#include <cstdint>
#include <vector>

#include <nlohmann/json.hpp>

#include "data/rows/packing.h"

namespace graft {

struct PreparedRun;
struct RunState;

struct StudentAnswer {
  int64_t step = 0, sequence = 0;     // that it is for: a row of train
  std::vector<int32_t> ids;           // prompt, answer and the token that ended it
  std::vector<uint8_t> supervised;    // the answer, and what ended it
};

nlohmann::ordered_json to_json(const StudentAnswer& answer);
StudentAnswer student_answer_from_json(const nlohmann::ordered_json& json);

// Sequences of a step to which the student writes the answers: those without one, and of the others as many as make objective.on_policy.share of the step.
std::vector<int64_t> on_policy_sequences(const PreparedRun& run, int64_t step);

// The answers of `step`, taken out of the state. Where it has none they are written, for this and the next steps up to objective.on_policy.every: all processes call it,
// and get the same. A pure function of the student's weights there, seed and step: how many processes there are changes nothing.
std::vector<StudentAnswer> take_student_answers(const PreparedRun& run, RunState& state, int64_t step);

}  // namespace graft
