// Forward and reverse KL read both rows once for their sums, a mixture twice; then the gradient overwrites the student's.
#include "kernels/linear_kl/kl_rows.cuh"

#include "kernels/linear_head/logit_values.cuh"
#include "kernels/linear_kl/divergence.cuh"

namespace graft::cuda {
namespace {

// A block's sums over outcomes.
struct DivergenceMemory {
  BlockSumMemory<kLogitThreads> loss, mean;
};
GRAFT_DEVICE DivergenceSums block_sum(const DivergenceSums& own, DivergenceMemory& memory) {
  DivergenceSums all;
  all.loss = block_sum(own.loss, memory.loss);
  all.mean = block_sum(own.mean, memory.mean);
  return all;
}

struct KlMemory {
  ExponentialSumMemory<kLogitThreads> student, teacher;
  DivergenceMemory sums;
};

template <Divergence kDivergence, typename Logit, typename Gradient>
GRAFT_KERNEL(kLogitThreads) kl_rows(const KlRows arguments) {
  constexpr int kPack = kWidestPack<Logit>;
  auto& memory = GRAFT_SHARED(KlMemory);
  const KlProblem& problem = arguments.problem;
  const int64_t row = block_in_grid();
  const int width = problem.student.width;
  const SoftCap cap(problem.student.softcap), teacher_cap(arguments.teacher.softcap);
  const DivergenceOf<kDivergence> divergence(problem);
  auto* student = row_of<Logit>(problem.student, row);
  const auto* teacher = row_of<Logit>(arguments.teacher, row);
  const auto tempered_teacher = [&](float logit) { return teacher_cap(logit) * problem.inverse_temperature; };
  // f(student's, teacher's) of this thread's tempered logits.
  const auto for_both = [&](const auto& f) {
    for_values(student, width, -infinity(), [&](int first, float(&values)[kPack]) {
      float others[kPack];
      load_values(others, teacher, first, width, -infinity());
      GRAFT_UNROLL
      for (int k = 0; k < kPack; ++k) {
        values[k] = cap(values[k]) * problem.inverse_temperature;
        others[k] = tempered_teacher(others[k]);
      }
      f(values, others);
    });
  };

  // With D the mean of a difference of logits, both KLs need no other pass for their sums.
  ExponentialSum of_student, of_teacher;
  for_both([&](const float(&values)[kPack], const float(&others)[kPack]) {
    float differences[kPack];
    GRAFT_UNROLL
    for (int k = 0; k < kPack; ++k) differences[k] = kDivergence == Divergence::kForwardKl ? others[k] - values[k] : values[k] - others[k];
    if (kDivergence == Divergence::kReverseKl) {
      of_student.add(values, differences);
    } else {
      of_student.add(values);
    }
    if (kDivergence == Divergence::kForwardKl) {
      of_teacher.add(others, differences);
    } else {
      of_teacher.add(others);
    }
  });
  of_student = block_sum(of_student, memory.student);
  of_teacher = block_sum(of_teacher, memory.teacher);
  const float log_student = of_student.log(), log_teacher = of_teacher.log();
  DivergenceSums sums;
  if (kDivergence == Divergence::kForwardKl) {
    sums.loss = of_teacher.weighted / of_teacher.sum + log_student - log_teacher;
  } else if (kDivergence == Divergence::kReverseKl) {
    sums.loss = sums.mean = of_student.weighted / of_student.sum + log_teacher - log_student;
  } else {
    for_both([&](const float(&values)[kPack], const float(&others)[kPack]) {
      GRAFT_UNROLL
      for (int k = 0; k < kPack; ++k) divergence.add(sums, others[k] - log_teacher, values[k] - log_student);
    });
    sums = block_sum(sums, memory.sums);
  }
  if (thread_in_block() == 0) store(problem.losses_B + row, sums.loss);
  if (!problem.scales_B) return;

  const float scale = load(problem.scales_B + row);
  replace_values<Gradient>(student, width, [&](int first, float(&values)[kPack]) {
    float others[kPack];
    load_values(others, teacher, first, width, 0);
    GRAFT_UNROLL
    for (int k = 0; k < kPack; ++k) {
      const float capped = cap(values[k]);
      const float gradient = divergence.gradient(tempered_teacher(others[k]) - log_teacher, capped * problem.inverse_temperature - log_student, sums.mean);
      values[k] = gradient * scale * cap.slope(capped);
    }
  });
}

struct SparseKlMemory {
  SharedArray<float, kMostSparseEntries + 1> outcomes;   // of entries and, behind them, the rest: the student's logit / T, later the gradient
  ExponentialSumMemory<kLogitThreads> rest, all;
  DivergenceMemory sums;
};

// Entries' logits are taken out of the row, which then sums what is left without cancellation.
template <Divergence kDivergence, typename Logit, typename Gradient>
GRAFT_KERNEL(kLogitThreads) sparse_kl_rows(const SparseKlRows arguments) {
  constexpr int kPack = kWidestPack<Logit>;
  auto& memory = GRAFT_SHARED(SparseKlMemory);
  const KlProblem& problem = arguments.problem;
  const int64_t row = block_in_grid();
  const int width = problem.student.width, the_rest = arguments.num_entries;
  const SoftCap cap(problem.student.softcap);
  const DivergenceOf<kDivergence> divergence(problem);
  auto* student = row_of<Logit>(problem.student, row);
  // f(which, token) of this thread's entries; with the rest as the last, whose token is `width`.
  const auto for_outcomes = [&](int count, const auto& f) {
    for (int k = thread_in_block(); k < count; k += kLogitThreads) {
      const int token = k == the_rest ? width : load(arguments.ids_BK + row * the_rest + k);
      if (token >= 0) f(k, token);
    }
  };
  const auto log_probability = [&](int k) { return k == the_rest ? load(arguments.log_tails_B + row) : load(arguments.log_probabilities_BK + row * the_rest + k); };

  ExponentialSum sum_of_all;
  for_outcomes(the_rest, [&](int k, int token) {
    const float tempered = cap(to_float(load(student + token))) * problem.inverse_temperature;
    memory.outcomes.write(k, tempered);
    store(student + token, from_float<Logit>(-infinity()));
    sum_of_all.add({tempered});
  });
  block_barrier();
  ExponentialSum sum_of_rest;
  for_values(student, width, -infinity(), [&](int, float(&values)[kPack]) {
    GRAFT_UNROLL
    for (int k = 0; k < kPack; ++k) values[k] = cap(values[k]) * problem.inverse_temperature;
    sum_of_rest.add(values);
  });
  const float log_rest = block_sum(sum_of_rest, memory.rest).log();
  if (thread_in_block() == 0) {
    memory.outcomes.write(the_rest, log_rest);
    sum_of_all.add({log_rest});
  }
  const float log_sum = block_sum(sum_of_all, memory.all).log();

  DivergenceSums sums;
  for_outcomes(the_rest + 1, [&](int k, int) { divergence.add(sums, log_probability(k), memory.outcomes.read(k) - log_sum); });
  sums = block_sum(sums, memory.sums);
  if (thread_in_block() == 0) store(problem.losses_B + row, sums.loss);
  if (!problem.scales_B) return;

  for_outcomes(the_rest + 1, [&](int k, int token) {
    const float tempered = memory.outcomes.read(k);
    const float gradient = divergence.gradient(log_probability(k), tempered - log_sum, sums.mean) * load(problem.scales_B + row);
    memory.outcomes.write(k, token == width ? gradient : gradient * cap.slope(tempered * problem.temperature));
  });
  block_barrier();
  const float of_rest = memory.outcomes.read(the_rest);   // each of its tokens has the share that it has of the probability
  replace_values<Gradient>(student, width, [&](int, float(&values)[kPack]) {
    GRAFT_UNROLL
    for (int k = 0; k < kPack; ++k) {
      const float capped = cap(values[k]), share = exponential(capped * problem.inverse_temperature - log_rest);
      values[k] = share > 0 ? of_rest * share * cap.slope(capped) : 0.0F;
    }
  });
  block_barrier();
  for_outcomes(the_rest, [&](int k, int token) { store(reinterpret_cast<Gradient*>(student) + token, from_float<Gradient>(memory.outcomes.read(k))); });
}

// launch_one(divergence as a type, types of the rows).
template <Divergence kDivergence>
struct DivergenceType {
  static constexpr Divergence kValue = kDivergence;
};
template <typename Function>
void visit(const KlProblem& problem, const Function& launch_one) {
  visit_types(problem.student.type, [&](auto types) {
    switch (problem.divergence) {
      case Divergence::kForwardKl: return launch_one(DivergenceType<Divergence::kForwardKl>(), types);
      case Divergence::kReverseKl: return launch_one(DivergenceType<Divergence::kReverseKl>(), types);
      case Divergence::kMixture: return launch_one(DivergenceType<Divergence::kMixture>(), types);
    }
  });
}

}  // namespace

const char* launch(const KlRows& arguments, void* stream) {
  const auto& problem = arguments.problem;
  if (const char* wrong = problem_of(problem.student)) return wrong;
  if (const char* wrong = problem_of(arguments.teacher)) return wrong;
  if (arguments.teacher.width != problem.student.width) return "expected a teacher's logits as wide as the student's";
  if (problem.num_rows == 0) return nullptr;
  visit(problem, [&](auto divergence, auto types) {
    using Types = decltype(types);
    constexpr Divergence kDivergence = decltype(divergence)::kValue;
    LAUNCH((kl_rows<kDivergence, typename Types::Logit, typename Types::Gradient>), problem.num_rows, kLogitThreads, sizeof(KlMemory), stream, arguments);
  });
  return launch_error();
}

const char* launch(const SparseKlRows& arguments, void* stream) {
  const auto& problem = arguments.problem;
  if (const char* wrong = problem_of(problem.student)) return wrong;
  if (arguments.num_entries < 1 || arguments.num_entries > kMostSparseEntries) return "expected 1 to 2048 entries a row";
  if (problem.num_rows == 0) return nullptr;
  visit(problem, [&](auto divergence, auto types) {
    using Types = decltype(types);
    constexpr Divergence kDivergence = decltype(divergence)::kValue;
    LAUNCH((sparse_kl_rows<kDivergence, typename Types::Logit, typename Types::Gradient>), problem.num_rows, kLogitThreads, sizeof(SparseKlMemory), stream, arguments);
  });
  return launch_error();
}

}  // namespace graft::cuda
