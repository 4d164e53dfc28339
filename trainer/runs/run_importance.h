// The importance matrix that an export of a recipe asks for: none, a file, or one of the run's training rows.
#pragma once
#include <filesystem>
#include <memory>
#include <vector>

#include "checkpoints/importance_matrix.h"
#include "trainer/exports/input_products.h"
#include "trainer/runs/prepared_run.h"

namespace graft {

// Null for none; of training rows one without entries: it is not yet known. UserError: a file that is no importance matrix.
std::shared_ptr<const ImportanceMatrix> planned_importance(const ExportOptions& wanted);

// `decoder`, the trained model, over the run's training rows, evenly chosen, about 32,768 tokens of them (llama-imatrix's usual 100 chunks of 512 are 51,200).
std::shared_ptr<const ImportanceMatrix> importance_of_training_rows(const PreparedRun& run, const Decoder& decoder);

// Of the same rows, how much every layer changes them (trainer/exports/layer_changes.h).
std::vector<double> layer_changes_of_training_rows(const PreparedRun& run, const Decoder& decoder);

// Of the same rows, for rounding with error feedback. `run` outlives it.
std::unique_ptr<InputProducts> products_of_training_rows(const PreparedRun& run);

}  // namespace graft
