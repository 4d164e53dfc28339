// A student and a teacher of each kind, and linear_kl's options: what its tests on every path share.
#pragma once
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "kernels/linear_kl/linear_kl.h"
#include "tests/kernels/torch/operators.h"

namespace graft::testing {

enum class TeacherKind { kHidden, kDense, kSparse };

struct DistillationCase {
  Divergence divergence = Divergence::kForwardKl;
  TeacherKind teacher = TeacherKind::kHidden;
  bool weighted = false;
  double softcap = 0, teacher_softcap = 0, temperature = 1;
  bool squared = false;
  Mixture mixture;
};

inline std::string describe(const DistillationCase& c) {
  return fmt::format("divergence {}, teacher {}, weights {}, softcaps {} and {}, temperature {} ({}), mixture {} of {}", static_cast<int>(c.divergence), static_cast<int>(c.teacher), c.weighted, c.softcap,
                     c.teacher_softcap, c.temperature, c.squared ? "T^2" : "1", c.mixture.teacher_weight, c.mixture.teacher_part);
}

// Each option alone, and all, with every divergence and teacher.
inline std::vector<DistillationCase> distillation_cases() {
  std::vector<DistillationCase> cases;
  for (const auto divergence : {Divergence::kForwardKl, Divergence::kReverseKl, Divergence::kMixture}) {
    for (const auto teacher : {TeacherKind::kHidden, TeacherKind::kDense, TeacherKind::kSparse}) {
      cases.insert(cases.end(), {{divergence, teacher},
                                 {divergence, teacher, true},
                                 {divergence, teacher, false, 3, 0},
                                 {divergence, teacher, false, 0, 2},
                                 {divergence, teacher, false, 0, 0, 2.5},
                                 {divergence, teacher, true, 4, 3, 0.7, true, jensen_shannon(0.1)},
                                 {divergence, teacher, false, 0, 0, 1, false, jensen_shannon(0.9)}});
      if (divergence != Divergence::kMixture) continue;
      for (const auto& mixture : {skewed_forward_kl(0.1), skewed_reverse_kl(0.1), Mixture{0.7, 0.2}}) cases.push_back({divergence, teacher, true, 4, 0, 0.7, true, mixture});
    }
  }
  return cases;
}

struct Distillation {
  at::Tensor hidden, head, teacher_hidden, teacher_head;
  std::vector<float> weights;

  Distillation(int64_t num_rows, int64_t vocab)
      : hidden(random_tensor({num_rows, 12}, 1)), head(random_tensor({vocab, 12}, 2)), teacher_hidden(random_tensor({num_rows, 20}, 3)), teacher_head(random_tensor({vocab, 20}, 4, 0.7)) {
    for (int64_t i = 0; i < num_rows; ++i) weights.push_back(0.5f + 0.1f * static_cast<float>(i % 4));
  }

  at::Tensor dense_logits() const { return at::matmul(teacher_hidden, teacher_head.t()); }

  // f: linear_kl or linear_kl_reference. The gradient is that of 0.7 weighted_loss.
  using Function = KlResult (*)(const at::Tensor&, const HeadPieces&, const Teacher&, std::span<const float>, const KlOptions&);
  KlResult run(Function f, const DistillationCase& c, at::ScalarType type, int64_t buffer = int64_t{1} << 20) const { return run_on(f, c, hidden.to(type), teacher_hidden.to(type), buffer); }

  // In double, of what `type` holds.
  KlResult exact(const DistillationCase& c, at::ScalarType type) const {
    return run_on(linear_kl_reference, c, hidden.to(type).to(at::kDouble), teacher_hidden.to(type).to(at::kDouble), int64_t{1} << 20);
  }

  KlResult run_on(Function f, const DistillationCase& c, const at::Tensor& student_hidden, const at::Tensor& teachers_hidden, int64_t buffer) const {
    KlOptions options;
    options.divergence = c.divergence;
    options.mixture = c.mixture;
    options.temperature = c.temperature;
    options.times_temperature_squared = c.squared;
    options.gradient_scale = 0.7;
    options.buffer_bytes = buffer;
    const auto student = frozen(head), teacher = frozen(teacher_head);
    const LinearHead of_student(student, c.softcap), of_teacher(teacher, c.teacher_softcap);
    const WholeHead whole(of_student), teachers(of_teacher);
    const auto given = c.weighted ? std::span<const float>(weights) : std::span<const float>();
    if (c.teacher == TeacherKind::kHidden) return f(student_hidden, whole, HiddenTeacher{teachers_hidden, teachers}, given, options);
    if (c.teacher == TeacherKind::kDense) return f(student_hidden, whole, DenseTeacher{dense_logits()}, given, options);
    // The largest tokens, in another order, with a row that has fewer; the rest by its mass.
    constexpr int64_t kEntries = 5;
    const auto log_p = at::log_softmax(dense_logits() / c.temperature, 1);
    auto [values, ids] = log_p.topk(kEntries);
    ids = ids.flip(1).to(at::kInt).contiguous();
    values = values.flip(1).contiguous();
    ids[0][2] = -1;
    const auto mass = (1 - at::where(ids >= 0, values.exp(), at::zeros_like(values)).sum(1)).contiguous();
    const auto span_of = [](const at::Tensor& x) { return std::span<const float>(x.const_data_ptr<float>(), static_cast<size_t>(x.numel())); };
    const SparseTeacher sparse{kEntries, {ids.const_data_ptr<int32_t>(), static_cast<size_t>(ids.numel())}, span_of(values), c.weighted ? span_of(mass) : std::span<const float>(), c.temperature};
    return f(student_hidden, whole, sparse, given, options);
  }
};

inline void expect_same(const KlResult& ours, const KlResult& expected, double tolerance) {
  EXPECT_NEAR(ours.weighted_loss, expected.weighted_loss, tolerance * expected.weighted_loss);
  ASSERT_EQ(ours.losses_M.size(), expected.losses_M.size());
  for (size_t i = 0; i < ours.losses_M.size(); ++i) EXPECT_NEAR(ours.losses_M[i], expected.losses_M[i], 2 * tolerance * (expected.losses_M[i] + 0.1)) << "row " << i;
  EXPECT_LT(relative_error(ours.gradient_MC, expected.gradient_MC), tolerance);
}

}  // namespace graft::testing
