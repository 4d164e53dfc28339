#include "trainer/runs/run_importance.h"

#include <algorithm>
#include <filesystem>

#include "kernels/common/error.h"
#include "trainer/exports/input_squares.h"
#include "trainer/exports/layer_changes.h"
#include "trainer/report/log_file.h"

namespace graft {

namespace {

constexpr int64_t kTokens = 32768, kPackTokens = 1024;
constexpr int64_t kProductBytes = int64_t{1} << 30;

// Evenly chosen rows of training.
struct Chosen {
  std::vector<int64_t> sequences;
  int64_t tokens = 0;
};

Chosen chosen_rows(const PreparedRun& run) {
  const auto& split = run.dataset.train;
  const int64_t every = std::max<int64_t>(1, (split.statistics.tokens + kTokens - 1) / kTokens);
  Chosen chosen;
  for (int64_t sequence = 0; sequence < split.num_sequences(); sequence += every) {
    chosen.sequences.push_back(sequence);
    chosen.tokens += split.lengths[static_cast<size_t>(sequence)];
  }
  return chosen;
}

}  // namespace

std::shared_ptr<const ImportanceMatrix> planned_importance(const ExportOptions& wanted) {
  if (wanted.importance == "none") return nullptr;
  if (wanted.importance == "training_rows") return std::make_shared<ImportanceMatrix>();
  return std::make_shared<ImportanceMatrix>(read_importance_matrix(wanted.importance));
}

std::shared_ptr<const ImportanceMatrix> importance_of_training_rows(const PreparedRun& run, const Decoder& decoder) {
  const auto& split = run.dataset.train;
  const auto [sequences, tokens] = chosen_rows(run);
  log().info(fmt::format("importance matrix: {} training rows, {} tokens, through the trained model", sequences.size(), tokens));
  InputSquares squares(decoder);
  for (const auto& pack : pack_rows(sequences, split.lengths, kPackTokens)) squares.add(run.batch_of(split, pack));
  std::vector<std::string> datasets;
  for (const auto& source : run.recipe.data.train) datasets.push_back(std::filesystem::path(source.path).filename().string());
  return std::make_shared<ImportanceMatrix>(squares.matrix(std::move(datasets), kPackTokens));
}

std::vector<double> layer_changes_of_training_rows(const PreparedRun& run, const Decoder& decoder) {
  const auto& split = run.dataset.train;
  const auto [sequences, tokens] = chosen_rows(run);
  log().info(fmt::format("what layers change: {} training rows, {} tokens, through the trained model", sequences.size(), tokens));
  LayerChanges changes(decoder);
  for (const auto& pack : pack_rows(sequences, split.lengths, kPackTokens)) changes.add(run.batch_of(split, pack));
  return changes.means();
}

std::unique_ptr<InputProducts> products_of_training_rows(const PreparedRun& run) {
  auto batches = [&run](const std::function<void(Batch)>& with) {
    const auto& split = run.dataset.train;
    const auto [sequences, tokens] = chosen_rows(run);
    log().info(fmt::format("error feedback: {} training rows, {} tokens, through the trained model", sequences.size(), tokens));
    for (const auto& pack : pack_rows(sequences, split.lengths, kPackTokens)) with(run.batch_of(split, pack));
  };
  return std::make_unique<InputProducts>(*run.decoder, std::move(batches), kProductBytes);
}

}  // namespace graft
