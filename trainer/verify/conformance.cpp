#include "trainer/verify/conformance.h"

#include <cmath>
#include <cstring>

#include "checkpoints/tensor_source.h"
#include "kernels/common/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/quantized/dequantize.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/adapters/peft_layout.h"
#include "trainer/models/model_files.h"
#include "trainer/steps/micro_batch.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

class Golden {
 public:
  explicit Golden(const fs::path& path) : path_(path), source_(open_tensors(path)) {}
  const StoredTensor* find(const std::string& name) const { return source_->find(name); }
  const StoredTensor& need(const std::string& name, TensorType type) const {
    const auto* tensor = source_->find(name);
    if (!tensor || tensor->type != type) {
      fail("conform", "expected tensor {} of type {} in {}, got {} — make the golden as tests/conformance does", name, info(type).name,
           path_.filename().string(), tensor ? info(tensor->type).name : "none");
    }
    return *tensor;
  }
  std::vector<int64_t> integers(const std::string& name) const {
    const auto& tensor = need(name, TensorType::kI64);
    std::vector<int64_t> values(tensor.num_elements());
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    return values;
  }
  std::vector<float> floats(const std::string& name) const {
    const auto& tensor = need(name, TensorType::kF32);
    std::vector<float> values(tensor.num_elements());
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    return values;
  }
  const TensorSource& source() const { return *source_; }

 private:
  fs::path path_;
  std::unique_ptr<TensorSource> source_;
};

// [B, T] rows, or with `documents` one row cut at its borders. Labels are shifted inside a document and never across.
Batch batch_of(const Golden& golden) {
  const auto& shape = golden.need("input_ids", TensorType::kI64).shape;
  if (shape.size() != 2) fail("conform", "expected input_ids [B, T], got {} dimensions", shape.size());
  const auto ids = golden.integers("input_ids"), labels = golden.integers("labels");
  if (ids.size() != labels.size()) fail("conform", "expected as many labels as input_ids ({}), got {}", ids.size(), labels.size());
  std::vector<int64_t> borders;
  if (golden.find("documents")) {
    borders = golden.integers("documents");
  } else {
    for (int64_t row = 0; row <= shape[0]; ++row) borders.push_back(row * shape[1]);
  }
  Batch batch;
  for (size_t d = 0; d + 1 < borders.size(); ++d) {
    if (borders[d] > borders[d + 1] || borders[d + 1] > static_cast<int64_t>(ids.size())) fail("conform", "expected rising documents, got others");
    batch.add_document({ids.begin() + borders[d], ids.begin() + borders[d + 1]});
    for (int64_t i = borders[d]; i < borders[d + 1]; ++i) {
      batch.labels_N.push_back(i + 1 < borders[d + 1] ? static_cast<int32_t>(labels[i + 1]) : kUnsupervised);
    }
  }
  if (batch.num_tokens() != static_cast<int64_t>(ids.size())) fail("conform", "expected documents to cover all tokens");
  return batch;
}

}  // namespace

double scale_free_error(const float* x, const float* y, int64_t size) {
  double difference = 0, total = 0;
  for (int64_t i = 0; i < size; ++i) {
    const double a = x[i], b = y[i];
    difference += (a - b) * (a - b);
    total += a * a + b * b;
  }
  return total == 0 && difference == 0 ? 0 : difference / total;
}

std::vector<ConformanceRow> run_conformance(const fs::path& model, const fs::path& golden_path, const std::optional<fs::path>& adapter_folder) {
  const Golden golden(golden_path);
  const auto files = find_model(model);
  auto decoder = load_decoder(files.base, ComputeType::kFloat32, files.quantize_base);
  const auto folder = adapter_folder ? adapter_folder : files.adapter;
  auto adapters = folder ? load_adapter(*decoder, *folder) : nullptr;
  const auto batch = batch_of(golden);

  std::vector<ConformanceRow> rows;
  const auto expected = golden.floats("logits");
  const auto logits = head_logits(decoder->forward(batch), decoder->head());
  if (logits.numel() != static_cast<int64_t>(expected.size())) {
    fail("conform", "expected logits of {} values as this model gives, got {} in the golden", logits.numel(), expected.size());
  }
  rows.push_back({"logits", scale_free_error(logits.const_data_ptr<float>(), expected.data(), logits.numel()), kLogitsTolerance});

  MicroBatchOptions options;
  options.want_gradient = adapters != nullptr;
  int64_t supervised = 0;
  for (const auto label : batch.labels_N) supervised += label != kUnsupervised;
  options.gradient_scale = 1.0 / static_cast<double>(std::max<int64_t>(supervised, 1));
  if (golden.find("load_balancing")) options.load_balancing = golden.floats("load_balancing").at(0);
  const auto result = run_micro_batch(*decoder, adapters.get(), batch, options);
  const double loss = result.weighted_loss * options.gradient_scale + options.load_balancing * result.load_balancing_loss, expected_loss = golden.floats("loss").at(0);
  rows.push_back({"loss", std::abs(loss - expected_loss) / std::abs(expected_loss), kLossTolerance});
  if (!adapters) return rows;

  const auto all_gradients = adapters->gradients.to(at::kFloat);
  const float* gradients = all_gradients.const_data_ptr<float>();
  size_t found = 0;
  for (const auto& adapter : adapters->adapters()) {
    const auto check = [&](const char* half, const std::vector<float>& ours) {
      const auto size = static_cast<int64_t>(ours.size());
      const auto name = "grad.base_model.model." + peft_module(*adapters, adapter) + ".lora_" + half + ".weight";
      const auto values = golden.floats(name);
      if (static_cast<int64_t>(values.size()) != size) fail("conform", "expected {} with {} values, got {}", name, size, values.size());
      rows.push_back({name, scale_free_error(ours.data(), values.data(), size), kGradientTolerance});
      ++found;
    };
    const auto factors = to_peft(adapter, gradients + adapter.offset_a, gradients + adapter.offset_b);
    check("A", factors.a);
    check("B", factors.b);
  }
  size_t in_golden = 0;
  for (const auto& tensor : golden.source().tensors()) in_golden += tensor.name.starts_with("grad.");
  if (in_golden != found) fail("conform", "expected {} gradients as this adapter has, got {} in the golden", found, in_golden);
  return rows;
}

}  // namespace graft
