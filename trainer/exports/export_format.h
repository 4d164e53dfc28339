// The export forms by name: "peft", "safetensors", "safetensors:F32", "gguf:Q8_0", "gguf-lora".
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "checkpoints/codecs/gguf_types.h"
#include "kernels/quantized/tensor_type.h"

namespace graft {

struct ExportFormat {
  enum class Kind { kPeft, kSafetensors, kGguf, kGgufLora };
  Kind kind = Kind::kPeft;
  std::string name;                            // as it was asked for
  TensorType safetensors = TensorType::kBF16;  // kSafetensors: of every tensor
  GgufFormat gguf = GgufFormat::kF16;          // kGguf
  bool is_folder() const { return kind == Kind::kPeft || kind == Kind::kSafetensors; }
  bool is_merged() const { return kind == Kind::kSafetensors || kind == Kind::kGguf; }
};

// UserError that lists the forms there are.
ExportFormat parse_export_format(std::string_view name);
std::vector<std::string> export_format_names();

}  // namespace graft
