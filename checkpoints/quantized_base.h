// model.quantize_base: plain matrices of a checkpoint, quantised as they are opened.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoints/tensor_source.h"

namespace graft {

// "nf4", "fp8", "int8", "q4_k", ...: what a base may be quantised to; null for another name.
std::optional<TensorType> quantized_base_type(std::string_view name);
std::vector<std::string> quantized_base_names();

// The source's tensors, those that `chosen` takes in blocks of `type` in memory of their own, one after the other, so that the file's pages go back; whose columns
// are no whole blocks get llama.cpp's fallback form, or stay. Tensors that are quantised stay as they are. UserError where nothing is quantised.
std::unique_ptr<TensorSource> quantize_tensors(std::shared_ptr<const TensorSource> source, TensorType type, const std::function<bool(const StoredTensor&)>& chosen);

}  // namespace graft
