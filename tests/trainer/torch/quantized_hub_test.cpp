// Quantised forms of the hub in every family: an export is read back as it was rounded, and a base that is quantised when it is loaded has the same blocks.
// What the libraries of the forms make of such files: tests/exports/quantized_hub_test.py, tests/checkpoints/hub_layouts_test.cpp.
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/sub.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/quantized/dequantize.h"
#include "tests/support/error_of.h"
#include "tests/trainer/torch/generation_tiny_model.h"
#include "trainer/exports/export.h"

namespace graft {
namespace {

class QuantizedHub : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Families, QuantizedHub, testing::ValuesIn(test::every_family()));

std::map<std::string, const StoredTensor*> tensors_of(const Decoder& decoder) {
  std::map<std::string, const StoredTensor*> tensors;
  for (const auto& tensor : decoder.source().tensors()) tensors[tensor.name] = &tensor;
  return tensors;
}

std::vector<float> values_of(const StoredTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
  dequantize(tensor.type, tensor.bytes.data(), tensor.num_elements(), values.data());
  return values;
}

double relative_error(const std::vector<float>& got, const std::vector<float>& expected) {
  double errors = 0, squares = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    errors += std::pow(static_cast<double>(got[i]) - expected[i], 2);
    squares += std::pow(static_cast<double>(expected[i]), 2);
  }
  return std::sqrt(errors / squares);
}

TEST_P(QuantizedHub, ExportsComeBackAsTheyWereRounded) {
  const test::TinyModel model(GetParam());
  const auto plain = tensors_of(*model.decoder);
  const test::TemporaryFolder out;
  for (const auto& [form, blocks, bound] : {std::tuple{"compressed-tensors:w4a16:g32", TensorType::kI4_32, 0.1}, {"compressed-tensors:nvfp4", TensorType::kNVFP4, 0.11}}) {
    SCOPED_TRACE(form);
    ExportRequest request;
    request.base = model.folder.path();
    request.decoder = model.decoder.get();
    request.format = form;
    request.out = out / "model";
    request.replace = true;
    if (GetParam() == "gpt2" || GetParam() == "gpt_oss") {   // its matrices are transposed, which engines take for other modules; one tensor holds all experts
      EXPECT_THAT(test::error_of([&] { export_model(request); }), testing::HasSubstr(GetParam() == "gpt2" ? "expected linear layers that" : "expected experts that are matrices of their own"));
      return;
    }
    const auto result = export_model(request);
    const auto served = load_decoder(result.path, ComputeType::kFloat32);
    int64_t num_quantized = 0;
    for (const auto& [name, tensor] : tensors_of(*served)) {
      const auto found = plain.find(name);
      ASSERT_NE(found, plain.end()) << name;
      ASSERT_EQ(tensor->shape, found->second->shape) << name;
      const double error = relative_error(values_of(*tensor), values_of(*found->second));
      if (tensor->type == blocks) {
        ++num_quantized;
        EXPECT_LT(error, bound) << name;
        EXPECT_GT(error, 0.01) << name;
      } else {
        EXPECT_EQ(tensor->type, TensorType::kBF16) << name;
        EXPECT_LT(error, 4e-3) << name;
      }
    }
    EXPECT_GT(num_quantized, 0);
    Batch batch;
    batch.add_document({3, 1, 4, 1, 5, 9, 2, 6});
    const auto logits = head_logits(served->forward(batch), served->head());
    const auto expected = head_logits(model.decoder->forward(batch), model.decoder->head());
    EXPECT_LT(at::linalg_vector_norm(at::sub(logits, expected)).item<double>() / at::linalg_vector_norm(expected).item<double>(), 1.2) << "rows in another order would be as far as random ones: 1.4";
  }
}

TEST_P(QuantizedHub, BasesAreQuantisedWhenTheyAreLoaded) {
  const test::TinyModel model(GetParam());
  const auto plain = tensors_of(*model.decoder);
  const auto quantized = test::error_of([&] { load_decoder(model.folder.path(), ComputeType::kFloat32, "mxfp4"); });
  if (GetParam() == "gpt2") {
    EXPECT_THAT(quantized, testing::HasSubstr("expected plain matrices that MXFP4 can hold in model.base, got none"));
    return;
  }
  const auto decoder = load_decoder(model.folder.path(), ComputeType::kFloat32, "mxfp4");
  int64_t num_quantized = 0;
  for (const auto& weight : decoder->weights()) {
    const auto& rule = *weight.rule;
    const bool fits = is_linear_weight(rule) && !weight.form->transposed && rule.shape[1] % 32 == 0;
    ASSERT_EQ(weight.tensor->type == TensorType::kMXFP4, fits) << rule.ours;
    num_quantized += fits;
    if (!fits) continue;
    const auto error = relative_error(values_of(*decoder->source().find(rule.hub)), values_of(*plain.at(rule.hub)));
    EXPECT_GT(error, 0.01);
    EXPECT_LT(error, 0.14);
  }
  EXPECT_GT(num_quantized, 0);
}

// The same blocks as an export of the base in that form has, with fallbacks as in GGUF.
TEST(QuantizedBase, TakesFallbacksAndSaysWhatItCannotHold) {
  const test::TinyModel model("llama");
  const auto decoder = load_decoder(model.folder.path(), ComputeType::kFloat32, "q4_k");
  for (const auto& weight : decoder->weights()) {
    const auto& rule = *weight.rule;
    const auto expected = is_linear_weight(rule) && rule.shape[1] % 32 == 0 ? TensorType::kQ5_0 : TensorType::kF32;
    EXPECT_EQ(weight.tensor->type, expected) << rule.ours;
  }
  EXPECT_THAT(test::error_of([&] { load_decoder(model.folder.path(), ComputeType::kFloat32, "nf4"); }), testing::HasSubstr("expected plain matrices that NF4 can hold"));
}

}  // namespace
}  // namespace graft
