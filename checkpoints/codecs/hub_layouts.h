// Rows of blocks as the tensors that quantised checkpoints of the hub hold: the inverse of grouped_blocks.h.
// Sources: compressed-tensors 0.20, AutoGPTQ's layout ("gptq", zero points less one), AutoAWQ's "gemm", bitsandbytes 0.50 (NF4 without double quantisation).
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoints/tensor_declaration.h"

namespace graft {

enum class HubLayout { kInt4, kInt4Zero, kInt8, kFp8, kFp8Squares, kNvfp4, kMxfp4, kGptq, kAwq, kNf4 };

// By the names of export forms: "compressed-tensors:w4a16", "awq:g64", "nf4".
struct HubForm {
  HubLayout layout = HubLayout::kInt4;
  int64_t group = 0;   // 0: the form has none, or none was named
};
std::optional<HubForm> hub_form_from_name(std::string_view name);
std::vector<std::string> hub_form_names();   // each, and with each group
bool hub_takes_importance(HubLayout layout);
bool rounds_rows_alone(HubLayout layout);   // quantize() of hub_block_type makes its blocks: no scale is shared by several rows

// The blocks that a layout is made of; `group`: columns of INT4 that share a scale, 32, 64 or 128.
TensorType hub_block_type(HubLayout layout, int64_t group);

// Whether a matrix fits: columns in whole blocks, and rows in whole words where those hold rows.
bool fits_hub_layout(HubLayout layout, int64_t group, int64_t rows, int64_t columns);

// float32 rows to blocks of hub_block_type. Calls that share a matrix take whole slabs of kHubSlab rows each; global_scale: of NVFP4, nvfp4_global_scale of the whole
// matrix. importance: one number for each column, or empty; of INT4 and FP4. UserError for weights that are not finite, and as quantize().
void quantize_for_hub(HubLayout layout, int64_t group, const float* values, int64_t rows, int64_t columns, float global_scale, std::span<const float> importance, std::byte* blocks);
inline constexpr int64_t kHubSlab = 128;

// Whether hub_bytes holds blocks of hub_block_type as they are, without a change of any value: their scales lie as the layout has them. Of a matrix that was in such a
// form before; false where the answer needs more than the blocks (NVFP4, zero points, GPTQ's float16).
bool keeps_blocks(HubLayout layout, const std::byte* blocks, int64_t rows, int64_t columns);

// The tensors of a matrix [rows, columns] in the order of hub_bytes; `module` is its name without ".weight".
std::vector<TensorDeclaration> hub_tensors(HubLayout layout, int64_t group, const std::string& module, int64_t rows, int64_t columns);

// Their bytes. blocks: [rows, columns] of hub_block_type; global_scale: of NVFP4, which the scales of its blocks were divided by.
std::vector<std::vector<std::byte>> hub_bytes(HubLayout layout, int64_t group, const std::byte* blocks, int64_t rows, int64_t columns, float global_scale);

}  // namespace graft
