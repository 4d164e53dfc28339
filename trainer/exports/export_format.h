// The export forms by name: "peft", "peft:per-expert", "safetensors", "safetensors:F32", "gguf:Q8_0", "gguf-lora", "compressed-tensors:w4a16", "gptq", "awq", "nf4", "mxfp4"; those with INT4
// take a group: "awq:g64".
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "checkpoints/codecs/gguf_types.h"
#include "checkpoints/codecs/hub_layouts.h"
#include "kernels/quantized/tensor_type.h"

namespace graft {

struct ExportFormat {
  enum class Kind { kPeft, kSafetensors, kGguf, kGgufLora, kQuantizedHub, kMxfp4 };
  Kind kind = Kind::kPeft;
  std::string name;                            // as it was asked for
  bool experts_apart = false;                  // kPeft: a module for each expert
  TensorType safetensors = TensorType::kBF16;  // kSafetensors: of every tensor
  GgufFormat gguf = GgufFormat::kF16;          // kGguf
  HubForm hub;                                 // kQuantizedHub; without a group INT4 has the largest that every matrix has whole ones of
  bool is_hub() const { return kind == Kind::kSafetensors || kind == Kind::kQuantizedHub || kind == Kind::kMxfp4; }   // config.json and safetensors
  bool is_folder() const { return kind == Kind::kPeft || is_hub(); }
  bool is_merged() const { return kind == Kind::kGguf || is_hub(); }
  bool takes_importance() const;               // whether an importance matrix changes its bytes
  bool takes_feedback() const;                 // whether it can be rounded with error feedback: below 8 bits
};

// UserError that lists the forms there are.
ExportFormat parse_export_format(std::string_view name);
std::vector<std::string> export_format_names();
void check_takes_feedback(const ExportFormat& format);   // UserError where it does not

}  // namespace graft
