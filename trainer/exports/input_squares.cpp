#include "trainer/exports/input_squares.h"

#include <ATen/ops/square.h>
#include <ATen/ops/sum.h>

namespace graft {
namespace {

// Matrices of the GGUF tensor that holds this rule's, and the place of this rule's among them.
struct Place {
  int64_t count = 1, index = 0;
};

Place place_of(const StoredForm& form) {
  if (form.whole.size() != 3) return {};
  return {form.whole[0], form.first / (form.whole[1] * form.whole[2])};
}

}  // namespace

void InputSquares::add(Batch batch) {
  batch.observer = this;
  decoder_.forward(batch);
  ++num_batches_;
}

void InputSquares::see(const Linear& linear, int64_t expert, const at::Tensor& p_NC) {
  auto& of_experts = sums_[&linear];
  if (of_experts.empty()) of_experts.resize(static_cast<size_t>(linear.num_experts));
  auto& sums = of_experts[static_cast<size_t>(expert)];
  sums.squares_C.resize(static_cast<size_t>(linear.inputs()));
  sums.count += p_NC.size(0);
  const auto squares_C = at::sum(at::square(p_NC.to(at::kCPU, at::kDouble)), 0).contiguous();
  for (size_t column = 0; column < sums.squares_C.size(); ++column) sums.squares_C[column] += squares_C.const_data_ptr<double>()[column];
}

ImportanceMatrix InputSquares::matrix(std::vector<std::string> datasets, uint32_t chunk_size) const {
  ImportanceMatrix matrix;
  matrix.datasets = std::move(datasets);
  matrix.chunk_count = num_batches_;
  matrix.chunk_size = chunk_size;
  for (const auto& [linear, of_experts] : sums_) {
    for (size_t i = 0; i < linear->rules.size(); ++i) {
      const auto& rule = *linear->rules[i];
      const auto& form = rule.form(NameColumn::kGguf);
      if (form.transposed) continue;
      const auto& sums = of_experts[linear->is_bank() ? i / static_cast<size_t>(linear->parts()) : 0];
      const auto place = place_of(form);
      const auto columns = static_cast<size_t>(linear->inputs());
      auto& entry = matrix.entries[rule.name(NameColumn::kGguf)];
      entry.sums.resize(static_cast<size_t>(place.count) * columns);
      entry.counts.resize(static_cast<size_t>(place.count));
      entry.counts[static_cast<size_t>(place.index)] = static_cast<float>(sums.count);
      if (sums.count == 0) continue;
      const auto stored_column = stored_column_of_ours(rule, NameColumn::kGguf);   // rules that are rows of one matrix say the same
      float* to = entry.sums.data() + static_cast<size_t>(place.index) * columns;
      for (size_t column = 0; column < columns; ++column) to[stored_column.empty() ? column : static_cast<size_t>(stored_column[column])] = static_cast<float>(sums.squares_C[column]);
    }
  }
  return matrix;
}

}  // namespace graft
