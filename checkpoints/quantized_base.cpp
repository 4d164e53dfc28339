#include "checkpoints/quantized_base.h"

#include <utility>

#include "checkpoints/codecs/gguf_types.h"
#include "checkpoints/codecs/quantize.h"
#include "checkpoints/on_all_cores.h"
#include "kernels/common/error.h"
#include "kernels/quantized/dequantize.h"

namespace graft {
namespace {

constexpr std::pair<std::string_view, TensorType> kTypes[] = {
    {"nf4", TensorType::kNF4},   {"fp8", TensorType::kF8E4M3Scaled}, {"int8", TensorType::kI8Scaled}, {"q8_0", TensorType::kQ8_0},     {"q6_k", TensorType::kQ6_K},
    {"q5_k", TensorType::kQ5_K}, {"q4_k", TensorType::kQ4_K},        {"q4_0", TensorType::kQ4_0},     {"q4_1", TensorType::kQ4_1},     {"q5_0", TensorType::kQ5_0},
    {"q5_1", TensorType::kQ5_1}, {"iq4_nl", TensorType::kIQ4_NL},    {"iq4_xs", TensorType::kIQ4_XS}, {"mxfp4", TensorType::kMXFP4}};
constexpr int64_t kSlabRows = 64;

std::vector<std::byte> quantized(const StoredTensor& tensor, TensorType type) {
  const int64_t columns = tensor.shape.back(), rows = tensor.num_elements() / columns;
  const int64_t stored_row = bytes_of(tensor.type, std::vector<int64_t>{columns}).value(), row = bytes_of(type, std::vector<int64_t>{columns}).value();
  std::vector<std::byte> bytes(static_cast<size_t>(rows * row));
  std::vector<float> values(static_cast<size_t>(std::min(rows, kSlabRows) * columns));
  for (int64_t first = 0; first < rows; first += kSlabRows) {
    const int64_t count = std::min(kSlabRows, rows - first);
    dequantize(tensor.type, tensor.bytes.data() + first * stored_row, count * columns, values.data());
    quantize(type, values.data(), count, columns, bytes.data() + first * row);
  }
  return bytes;
}

class QuantizedBase : public TensorSource {
 public:
  QuantizedBase(std::shared_ptr<const TensorSource> source, TensorType type, const std::function<bool(const StoredTensor&)>& chosen) : source_(std::move(source)) {
    files_ = source_->files();
    tensors_ = source_->tensors();
    std::vector<size_t> places;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const auto& tensor = tensors_[i];
      if (!info(tensor.type).quantized && tensor.shape.size() >= 2 && chosen(tensor) && info(fallback_type(type, tensor.shape.back())).quantized) places.push_back(i);
    }
    if (places.empty())
      fail("models", "expected plain matrices that {} can hold in model.base, got none — leave quantize_base out where the base is quantised already, or choose another form", info(type).name);
    memory_.resize(places.size());
    on_all_cores(places.size(), [&](size_t i) {
      auto& tensor = tensors_[places[i]];
      const auto own = fallback_type(type, tensor.shape.back());
      try {
        memory_[i] = quantized(tensor, own);
      } catch (const UserError& error) {
        fail("models", "{} ({}, {})", error.what(), tensor.name, tensor.file.string());
      }
      source_->forget(tensor.bytes);   // one copy in memory, not two
      tensor.type = own;
      tensor.bytes = memory_[i];
    });
    index_tensors();
  }
  void forget(std::span<const std::byte> bytes) const override { source_->forget(bytes); }
  const TensorSource& opened() const override { return source_->opened(); }

 private:
  std::shared_ptr<const TensorSource> source_;
  std::vector<std::vector<std::byte>> memory_;
};

}  // namespace

std::optional<TensorType> quantized_base_type(std::string_view name) {
  for (const auto& [own, type] : kTypes)
    if (own == name) return type;
  return std::nullopt;
}

std::vector<std::string> quantized_base_names() {
  std::vector<std::string> names;
  for (const auto& [name, type] : kTypes) names.emplace_back(name);
  return names;
}

std::unique_ptr<TensorSource> quantize_tensors(std::shared_ptr<const TensorSource> source, TensorType type, const std::function<bool(const StoredTensor&)>& chosen) {
  return std::make_unique<QuantizedBase>(std::move(source), type, chosen);
}

}  // namespace graft
