#include "trainer/runs/training_step.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>

#include "kernels/common/error.h"
#include "trainer/distillation/label_targets.h"
#include "trainer/parallel/dealing.h"
#include "trainer/runs/stop_signals.h"

namespace graft {
namespace {

std::string places_of(const PreparedRun& run, const std::vector<int64_t>& sequences) {
  std::vector<std::string> places;
  for (const auto sequence : sequences) {
    const auto& row = run.dataset.train.row_of_sequence(sequence);
    places.push_back(fmt::format("{}:{}", row.source_file, row.line));
  }
  return fmt::format("{}", fmt::join(places, ", "));
}

// Of a micro-batch: its loss, and the three parts of it.
constexpr int64_t kLossFigures = 4;

void write_losses(const MicroBatchResult& part, double* figures) {
  figures[0] = part.weighted_loss;
  figures[1] = part.weighted_cross_entropy;
  figures[2] = part.weighted_divergence;
  figures[3] = part.weighted_hidden_state_loss;
}

void match_hidden_states(const PreparedRun& run, MicroBatchOptions& options) {
  if (!run.hidden_matching) return;
  options.hidden_matching = run.hidden_matching.get();
  options.hidden_matching_scale = run.hidden_matching->weight() * *options.divergence_scale;
}

// Rows that are computed together.
struct MicroBatch {
  std::vector<int64_t> sequences;
  std::vector<TokenSpan> rows;
  std::vector<const Row*> sources;
  bool on_policy = false;   // the student wrote the answers
};

std::vector<MicroBatch> micro_batches_of(const PreparedRun& run, const DatasetSplit& split, const std::vector<int64_t>& sequences) {
  std::vector<MicroBatch> micro_batches;
  for (auto& group : pack_rows(sequences, split.lengths, run.recipe.data.pack_tokens)) {
    auto rows = split.spans(group);
    auto sources = split.rows_of(group);
    micro_batches.push_back({std::move(group), std::move(rows), std::move(sources), false});
  }
  return micro_batches;
}

// What the ranks do with micro-batches: each computes its own, and where the base is sharded all of them gather together.
class SharedWork {
 public:
  SharedWork(const PreparedRun& run, const std::vector<MicroBatch>& micro_batches, const MicroBatchOptions& options)
      : run_(run), micro_batches_(micro_batches), options_(options) {
    std::vector<int64_t> tokens;
    for (const auto& micro_batch : micro_batches) {
      const auto work = run.work_of(micro_batch.rows, options.loss_buffer_bytes);
      tokens.push_back(work.tokens);
      head_blocks_.push_back(work.head_blocks);
    }
    const auto dealt = deal(tokens, run.group->size());
    for (int rank = 0; rank < run.group->size(); ++rank) rounds_.push_back(rounds_of(dealt, rank, run.group->size()));
  }

  // compute(micro-batch, its figures) for those of this rank. Returns all micro-batches' figures on every rank, so that sums over them are made in one order,
  // whatever the number of processes. signals: behind them each rank's stop signal.
  template <typename Compute>
  std::vector<double> figures(int64_t num_figures, bool signals, const std::string& operation, const Compute& compute) const {
    auto& group = *run_.group;
    const auto count = static_cast<int64_t>(micro_batches_.size()) * num_figures;
    auto figures = at::zeros({count + (signals ? group.size() : 0)}, at::kDouble);
    auto* values = figures.data_ptr<double>();
    const auto& mine = rounds_[static_cast<size_t>(group.rank())];
    for (size_t round = 0; round < mine.size(); ++round) {
      if (run_.sharded) run_.sharded->begin(gathers(round));
      if (mine[round] >= 0) compute(micro_batches_[static_cast<size_t>(mine[round])], values + mine[round] * num_figures);
      if (run_.sharded) run_.sharded->end();
    }
    if (signals) values[count + group.rank()] = pending_stop_signal();
    group.sum(figures, operation);
    return {values, values + figures.numel()};
  }

 private:
  GatherRound gathers(size_t round) const {
    GatherRound gathers{options_.want_gradient, run_.adapters->lowest_layer(), 0};
    for (const auto& rank : rounds_) {
      if (rank[round] >= 0) gathers.head_blocks = std::max(gathers.head_blocks, head_blocks_[static_cast<size_t>(rank[round])]);
    }
    return gathers;
  }

  const PreparedRun& run_;
  const std::vector<MicroBatch>& micro_batches_;
  const MicroBatchOptions& options_;
  std::vector<int64_t> head_blocks_;
  std::vector<std::vector<int64_t>> rounds_;   // of each rank
};

// What the objective follows: as the teacher says it, or with the rest as the label's.
std::optional<TeacherSignals> followed_signals(const PreparedRun& run, const MicroBatch& micro_batch, const Batch& batch) {
  auto signals = run.teacher_signals(micro_batch.rows, micro_batch.sources, batch, micro_batch.on_policy);
  if (signals && run.recipe.teacher.rest_is_labels()) signals->entries = rest_to_labels(signals->entries, batch);
  return signals;
}

double one_over(int64_t count) { return 1.0 / static_cast<double>(std::max<int64_t>(1, count)); }

// A step's rows, and over how many tokens its means go.
struct StepRows {
  std::vector<int64_t> sequences;
  std::vector<MicroBatch> micro_batches;
  int64_t tokens = 0, supervised = 0;   // of all rows
  int64_t own_supervised = 0, own_taught = 0, on_policy_taught = 0;
};

// answers: of the step, and outlive the rows.
StepRows step_rows(const PreparedRun& run, int64_t step, const std::vector<StudentAnswer>& answers) {
  StepRows rows;
  rows.sequences = run.sequences_of_step(step);
  const auto& train = run.dataset.train;
  auto own = rows.sequences;
  std::erase_if(own, [&](int64_t sequence) { return std::any_of(answers.begin(), answers.end(), [&](const StudentAnswer& answer) { return answer.sequence == sequence; }); });
  rows.micro_batches = micro_batches_of(run, train, own);
  std::vector<int64_t> places(answers.size()), lengths;
  std::iota(places.begin(), places.end(), 0);
  for (const auto& answer : answers) lengths.push_back(static_cast<int64_t>(answer.ids.size()));
  for (const auto& group : pack_rows(places, lengths, run.recipe.data.pack_tokens)) {
    MicroBatch micro_batch;
    micro_batch.on_policy = true;
    for (const auto place : group) {
      const auto& answer = answers[static_cast<size_t>(place)];
      micro_batch.sequences.push_back(answer.sequence);
      micro_batch.sources.push_back(&train.row_of_sequence(answer.sequence));
      micro_batch.rows.push_back({answer.ids, answer.supervised, static_cast<float>(train.row_of_sequence(answer.sequence).weight)});
    }
    rows.micro_batches.push_back(std::move(micro_batch));
  }
  for (const auto& micro_batch : rows.micro_batches) {
    int64_t supervised = 0;
    for (const auto& row : micro_batch.rows) {
      rows.tokens += static_cast<int64_t>(row.ids.size());
      supervised += count_targets(row.supervised);
    }
    rows.supervised += supervised;
    if (!micro_batch.on_policy) rows.own_supervised += supervised;
    (micro_batch.on_policy ? rows.on_policy_taught : rows.own_taught) += run.count_taught(micro_batch.rows);
  }
  return rows;
}

// The teacher's part alone of rows that the student answered: it has nothing to learn from its own tokens.
void without_cross_entropy(MicroBatchOptions& options) {
  options.divergence_scale = options.objective.teacher_share * *options.divergence_scale;
  options.objective.teacher_share = 1;
  options.objective.minifinetuning.reset();
  options.load_balancing = 0;
}

}  // namespace

StepResult run_step(PreparedRun& run, RunState& state, AdamW& optimizer, double learning_rate) {
  const int64_t step = state.step;
  run.group->at_step(step + 1);
  const auto answers = take_student_answers(run, state, step);
  const auto rows = step_rows(run, step, answers);
  StepResult result;
  result.tokens = rows.tokens;
  result.supervised = rows.supervised;
  result.on_policy_rows = static_cast<int64_t>(answers.size());
  result.on_policy_tokens = rows.on_policy_taught;
  for (const auto sequence : rows.sequences) result.row_ids.push_back(run.dataset.train.row_of_sequence(sequence).row_id);
  run.adapters->gradients.zero_();
  MicroBatchOptions options;
  options.gradient_scale = one_over(rows.own_supervised);
  options.divergence_scale = one_over(rows.own_taught + rows.on_policy_taught);
  match_hidden_states(run, options);
  options.recompute = run.recompute;
  options.weights = run.sharded.get();
  options.load_balancing = run.recipe.objective.load_balancing;
  options.want_routing = true;
  options.objective = objective_of(run.recipe.objective);
  const uint64_t dropout_seed = run.recipe.adapter.dropout > 0 ? static_cast<uint64_t>(run.recipe.run.seed) * 1000003u + static_cast<uint64_t>(step) + 1 : 0;
  RoutingSummary routing(run.decoder->spec());
  const int64_t num_figures = kLossFigures + routing.num_figures();
  const SharedWork work(run, rows.micro_batches, options);
  const auto figures = work.figures(num_figures, /*signals=*/true, "loss", [&](const MicroBatch& micro_batch, double* values) {
    const auto batch = run.batch_of(micro_batch.rows, micro_batch.sequences, dropout_seed);
    const auto teacher = followed_signals(run, micro_batch, batch);
    auto of_batch = options;
    of_batch.teacher = teacher ? &*teacher : nullptr;
    if (micro_batch.on_policy) without_cross_entropy(of_batch);
    const auto part = run_micro_batch(*run.decoder, run.adapters.get(), batch, of_batch);
    write_losses(part, values);
    routing.write(part, micro_batch.on_policy ? 0 : options.gradient_scale, values + kLossFigures);
  });
  for (size_t i = 0; i < rows.micro_batches.size(); ++i) {
    const double* values = figures.data() + static_cast<int64_t>(i) * num_figures;
    const auto& micro_batch = rows.micro_batches[i];
    if (!std::isfinite(values[0])) {
      fail("train", "expected a finite loss, got {} at step {} in the rows {} — look at these rows, lower optimizer.learning_rate, or set model.compute: float32; the last checkpoint is kept",
           values[0], step + 1, places_of(run, micro_batch.sequences));
    }
    result.loss += values[0] * options.gradient_scale;
    result.hidden_state_loss += values[3] * *options.divergence_scale;
    if (micro_batch.on_policy) {
      result.on_policy_divergence += values[2] * one_over(rows.on_policy_taught);
    } else {
      result.cross_entropy += values[1] * options.gradient_scale;
      result.divergence += values[2] * one_over(rows.own_taught);
    }
    routing.add(values + kLossFigures);
  }
  result.routing = routing.statistics();
  for (size_t i = rows.micro_batches.size() * static_cast<size_t>(num_figures); i < figures.size(); ++i) result.signal = std::max(result.signal, static_cast<int>(figures[i]));
  run.group->sum(run.adapters->gradients, "sum of the gradients");
  result.gradient_norm = optimizer.step(run.adapters->parameters, run.adapters->gradients, learning_rate);
  if (!std::isfinite(result.gradient_norm)) {
    fail("train", "expected a finite gradient norm, got {} at step {} in the rows {} — look at these rows, or lower optimizer.learning_rate; the last checkpoint is kept",
         result.gradient_norm, step + 1, places_of(run, rows.sequences));
  }
  run.adapters_changed();
  return result;
}

EvaluationLoss evaluate_loss(const PreparedRun& run, const DatasetSplit& split, bool with_teacher) {
  std::vector<int64_t> sequences(static_cast<size_t>(split.num_sequences()));
  for (size_t i = 0; i < sequences.size(); ++i) sequences[i] = static_cast<int64_t>(i);
  MicroBatchOptions options;
  options.want_gradient = false;
  options.gradient_scale = one_over(split.statistics.targets);
  options.divergence_scale = with_teacher ? one_over(run.count_taught(split.spans(sequences))) : options.gradient_scale;
  match_hidden_states(run, options);
  options.weights = run.sharded.get();
  options.objective = objective_of(run.recipe.objective);
  const auto micro_batches = micro_batches_of(run, split, sequences);
  const SharedWork work(run, micro_batches, options);
  constexpr int64_t kFigures = kLossFigures + 2;
  const auto figures = work.figures(kFigures, /*signals=*/false, "evaluation", [&](const MicroBatch& micro_batch, double* values) {
    auto batch = run.batch_of(micro_batch.rows, micro_batch.sequences);
    batch.weights_N.clear();
    batch.teaches_all &= with_teacher;
    const auto teacher = with_teacher ? followed_signals(run, micro_batch, batch) : std::nullopt;
    auto of_batch = options;
    of_batch.teacher = teacher ? &*teacher : nullptr;
    const auto part = run_micro_batch(*run.decoder, nullptr, batch, of_batch);
    write_losses(part, values);
    values[kLossFigures] = static_cast<double>(part.num_correct);
    values[kLossFigures + 1] = static_cast<double>(part.num_supervised);
  });
  double sums[kFigures] = {};
  for (size_t i = 0; i < micro_batches.size() * kFigures; ++i) sums[i % kFigures] += figures[i];
  const double count = std::max(1.0, sums[kLossFigures + 1]);
  return {sums[0] / count, sums[1] / count, sums[2] * *options.divergence_scale, sums[3] * *options.divergence_scale, sums[kLossFigures] / count, static_cast<int64_t>(sums[kLossFigures + 1])};
}

}  // namespace graft
