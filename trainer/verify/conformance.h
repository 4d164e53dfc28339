// A model's logits, loss and adapter gradients against a golden file (DESIGN section 5), float32 on the CPU.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace graft {

struct ConformanceRow {
  std::string name;
  double error = 0;       // |x-y|^2 / (|x|^2 + |y|^2); for the loss: relative difference
  double tolerance = 0;
  bool passed() const { return error <= tolerance; }   // NaN fails
};

constexpr double kLogitsTolerance = 1e-10, kGradientTolerance = 1e-9, kLossTolerance = 1e-6;

// UserError when the golden is malformed or lacks a gradient that the adapter has.
std::vector<ConformanceRow> run_conformance(const std::filesystem::path& model, const std::filesystem::path& golden,
                                            const std::optional<std::filesystem::path>& adapter);

// |x-y|^2 / (|x|^2 + |y|^2) in double; both zero: 0.
double scale_free_error(const float* x, const float* y, int64_t size);

}  // namespace graft
