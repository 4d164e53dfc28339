// What an export wrote, or would write: for the command line, `plan` and the report.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "kernels/quantized/tensor_type.h"

namespace graft {

struct ExportedTensor {
  std::string name;             // in the export
  std::vector<int64_t> shape;   // outermost first
  TensorType stored = TensorType::kF32;   // in the base; of an adapter's own tensors F32
  TensorType type = TensorType::kF32;     // in the export
  bool adapted = false;         // carries the fine-tune
  bool copied = false;          // the base's bytes
  std::string fallback;         // why not the form's own type: "Q6_K wants columns in 256s, got 576"; empty: it is
};

struct ExportResult {
  std::string format;
  std::filesystem::path path;                  // the file, or the folder
  std::vector<std::filesystem::path> files;    // what was written, in the order of their names
  uint64_t bytes = 0;                          // of all files; of a plan: of the tensors
  std::vector<ExportedTensor> tensors;
  std::vector<std::string> notes;              // what a user should know, one line each
  std::string warning;                         // the export is allowed but loses the fine-tune; empty: it does not
  std::vector<std::string> serve;              // commands that serve it
};

// What an export is: tensor types and their counts, as "Q4_1 210, Q8_0 1, F32 61".
std::string describe_types(const std::vector<ExportedTensor>& tensors);

// Merging onto the grid that the base already lies on rounds most changes away (measured: KL 0.95 of 1.01 lost for Q4_1). A warning
// that names the forms which keep the fine-tune, when more than half of the adapted matrices come back in their own type of below
// 8 bits; else empty.
std::string own_grid_warning(const std::vector<ExportedTensor>& tensors);

}  // namespace graft
