#include "checkpoints/tensor_source.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "checkpoints/quote.h"
#include "kernels/common/error.h"

namespace graft {

int64_t StoredTensor::num_elements() const {
  int64_t product = 1;
  for (const int64_t dimension : shape) product *= dimension;  // fits: the source checked it when it was opened
  return product;
}

std::optional<int64_t> bytes_of(TensorType type, std::span<const int64_t> shape) {
  const TensorTypeInfo& layout = info(type);
  const int64_t row = shape.empty() ? 1 : shape.back();
  if (row % layout.block_elements != 0) return std::nullopt;
  // Zero-sized tensors first: a product that overflows before it meets the zero would be refused.
  if (std::ranges::any_of(shape, [](int64_t dimension) { return dimension < 0; })) return std::nullopt;
  if (std::ranges::find(shape, 0) != shape.end()) return 0;
  int64_t elements = 1;
  for (const int64_t dimension : shape)
    if (__builtin_mul_overflow(elements, dimension, &elements)) return std::nullopt;
  int64_t bytes;
  if (__builtin_mul_overflow(elements / layout.block_elements, layout.block_bytes, &bytes)) return std::nullopt;
  return bytes;
}

const StoredTensor* TensorSource::find(std::string_view name) const {
  if (by_name_.size() != tensors_.size()) {  // a source that was not indexed
    const auto found = std::ranges::find(tensors_, name, &StoredTensor::name);
    return found == tensors_.end() ? nullptr : &*found;
  }
  const auto name_of = [&](size_t i) -> std::string_view { return tensors_[i].name; };
  const auto found = std::ranges::lower_bound(by_name_, name, {}, name_of);
  return found == by_name_.end() || tensors_[*found].name != name ? nullptr : &tensors_[*found];
}

void TensorSource::index_tensors() {
  by_name_.resize(tensors_.size());
  std::iota(by_name_.begin(), by_name_.end(), size_t{0});
  std::ranges::sort(by_name_, {}, [&](size_t i) -> std::string_view { return tensors_[i].name; });
  std::string twice;
  for (size_t i = 1; i < by_name_.size(); ++i) {
    const StoredTensor& first = tensors_[by_name_[i - 1]];
    const StoredTensor& second = tensors_[by_name_[i]];
    if (first.name != second.name) continue;
    twice += fmt::format("{}{} ({} and {})", twice.empty() ? "" : ", ", quote(first.name), first.file.string(),
                         second.file.string());
    if (twice.size() > 2000) {
      twice += ", and more";
      break;
    }
  }
  if (!twice.empty())
    fail("checkpoints", "expected every tensor once, got these names twice: {} — the checkpoint is damaged; write it again",
         twice);
}

}  // namespace graft
