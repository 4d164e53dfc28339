#include "trainer/exports/export_format.h"

#include <utility>

#include <fmt/ranges.h>

#include "kernels/common/error.h"

namespace graft {
namespace {

using Kind = ExportFormat::Kind;
constexpr TensorType kSafetensorsTypes[] = {TensorType::kBF16, TensorType::kF16, TensorType::kF32};

}  // namespace

bool ExportFormat::takes_importance() const {
  if (kind == Kind::kGguf) return gguf_takes_importance(gguf);
  return kind == Kind::kQuantizedHub && hub_takes_importance(hub.layout);
}

bool ExportFormat::takes_feedback() const { return takes_importance() || kind == Kind::kMxfp4 || (kind == Kind::kQuantizedHub && hub.layout == HubLayout::kNf4); }

void check_takes_feedback(const ExportFormat& format) {
  if (!format.takes_feedback()) fail("exports", "expected error feedback with a form of fewer than 8 bits, got it with {} — leave it out, or choose another form", format.name);
}

std::vector<std::string> export_format_names() {
  std::vector<std::string> names = {"peft", "peft:per-expert", "gguf-lora", "safetensors"};
  for (const auto type : kSafetensorsTypes) names.push_back(fmt::format("safetensors:{}", info(type).name));
  for (const auto name : gguf_format_names()) names.push_back(fmt::format("gguf:{}", name));
  for (auto& name : hub_form_names()) names.push_back(std::move(name));
  names.push_back("mxfp4");
  return names;
}

ExportFormat parse_export_format(std::string_view name) {
  ExportFormat format;
  format.name = name;
  format.experts_apart = name == "peft:per-expert";
  if (name == "peft" || format.experts_apart) return format;
  if (name == "gguf-lora") {
    format.kind = Kind::kGgufLora;
    return format;
  }
  if (name.starts_with("safetensors")) {
    format.kind = Kind::kSafetensors;
    if (name == "safetensors") return format;
    for (const auto type : kSafetensorsTypes) {
      if (name != fmt::format("safetensors:{}", info(type).name)) continue;
      format.safetensors = type;
      return format;
    }
  }
  if (name.starts_with("gguf:")) {
    if (const auto gguf = gguf_format_from_name(name.substr(5))) {
      format.kind = Kind::kGguf;
      format.gguf = *gguf;
      return format;
    }
  }
  if (name == "mxfp4") {
    format.kind = Kind::kMxfp4;
    return format;
  }
  if (const auto hub = hub_form_from_name(name)) {
    format.kind = Kind::kQuantizedHub;
    format.hub = *hub;
    return format;
  }
  fail("exports", "expected one of the forms {}, got \"{}\" — choose one of these", fmt::join(export_format_names(), ", "), name);
}

}  // namespace graft
