// Quantised checkpoints of the hub, whose matrices are several tensors each (codes, scales, zero points), as one tensor of blocks a matrix: no value changes.
// Sources: compressed-tensors 0.20, transformers' fp8 (DeepSeek V3), GPTQ (AutoGPTQ's and GPTQModel's layout), AWQ ("gemm"), bitsandbytes 0.50 (NF4).
#pragma once
#include <filesystem>
#include <memory>

#include <nlohmann/json.hpp>

#include "checkpoints/tensor_source.h"

namespace graft {

struct HubQuantization {
  enum class Method { kCompressedTensors, kFp8, kGptq, kAwq, kBitsAndBytes };
  Method method = Method::kCompressedTensors;
  int gptq_zero_offset = 1;   // what a stored zero point lacks: 1 in the format "gptq", 0 in "gptq_v2"
};

// What `quantization_config` of a config.json (`file`, for messages) says of how to read the tensors. UserError for methods, formats and options that are not read
// here, so that no weight is taken for another: sparsity, rotations, other bits than these, pickled forms.
HubQuantization hub_quantization(const nlohmann::ordered_json& quantization_config, const std::filesystem::path& file);

// The source's tensors with each quantised matrix as NAME.weight [out, in] in blocks (kernels/quantized/block_layouts.h), in memory of its own; pages that were
// read go back. Scales of activations and of key-value caches are left out: activations are computed in the compute type. UserError where parts are missing or
// do not fit each other, columns cut a block, or GPTQ's g_idx reorders columns. Uses all cores.
std::unique_ptr<TensorSource> join_quantized(std::shared_ptr<const TensorSource> source, const HubQuantization& quantization);

}  // namespace graft
