// Base plus adapter, one tensor at a time: W + scale * B A in float32 from the base's dequantised weights, then rounded once to the type
// that is asked for. Memory: one tensor in that type, its pages of the mapped base, and 64 float32 rows per thread.
#pragma once
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoints/tensor_declaration.h"
#include "trainer/exports/error_feedback.h"
#include "trainer/exports/export_source.h"

namespace graft {

struct MergedPart {
  const WeightRule* rule = nullptr;
  const StoredTensor* stored = nullptr;
  const StoredForm* form = nullptr;        // of `stored`
  const LowRankUpdate* update = nullptr;   // null: not adapted
  const CutWeight* cut = nullptr;          // null: kept whole
  const WeightRule& whole_rule() const { return cut ? *cut->whole : *rule; }   // of what is stored
};

// A tensor of the target: one of ours, or several one after another (experts).
struct MergedTensor {
  std::vector<MergedPart> parts;
  TensorType stored_type() const { return parts.front().stored->type; }
  bool adapted() const;
};

class MergedWeights {
 public:
  // The tensors as `target` names and lays them out. `source` must outlive this.
  MergedWeights(const ExportSource& source, NameColumn target);
  const std::vector<MergedTensor>& tensors() const { return tensors_; }
  const std::string& name(const MergedTensor& tensor) const { return tensor.parts.front().rule->name(target_); }
  std::vector<int64_t> shape(const MergedTensor& tensor) const { return tensor.parts.front().rule->stored_shape(target_); }

  // Matrices with columns of their own: experts.
  int64_t num_matrices(const MergedTensor& tensor) const;

  // Whether the stored bytes are taken as they are, rows moved at most: nothing is added and the type is the same.
  static bool keeps_bytes(const MergedTensor& tensor, TensorType type);

  // The tensor's bytes as `type`; valid until the next call. UserError when the weights do not fit the type (names the tensor).
  // importance: one number for each column of the target, for each of num_matrices one after another; empty: all columns alike (checkpoints/codecs/quantize.h).
  // Where the source has products, linears are rounded with error feedback instead.
  std::span<const std::byte> bytes(const MergedTensor& tensor, TensorType type, std::span<const float> importance = {});

  // Of rounding a matrix, whose columns are ours, to `type`; none without products.
  std::optional<FeedbackFactor> factor_of(const MergedPart& tensor, TensorType type) const;

 private:
  std::span<const std::byte> merged_bytes(const MergedTensor& tensor, TensorType type, std::span<const float> importance);
  std::span<const std::byte> bytes_of_part(const MergedPart& part, TensorType type, std::span<const float> importance);
  std::span<const std::byte> bytes_in_turn(std::span<const MergedPart> parts, TensorType type, std::span<const float> importance);

  void forget_last();

  NameColumn source_column_, target_;
  ColumnProducts* products_;
  std::vector<MergedTensor> tensors_;
  std::vector<std::byte> buffer_, whole_;
  const TensorSource* stored_;
  const MergedTensor* last_ = nullptr;   // whose bytes were asked for
};

}  // namespace graft
