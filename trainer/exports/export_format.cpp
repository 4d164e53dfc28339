#include "trainer/exports/export_format.h"

#include <utility>

#include <fmt/ranges.h>

#include "kernels/common/error.h"

namespace graft {
namespace {

using Kind = ExportFormat::Kind;
constexpr TensorType kSafetensorsTypes[] = {TensorType::kBF16, TensorType::kF16, TensorType::kF32};

constexpr std::pair<std::string_view, HubLayout> kHubLayouts[] = {
    {"compressed-tensors:w4a16", HubLayout::kInt4}, {"compressed-tensors:w4a16-asym", HubLayout::kInt4Zero}, {"compressed-tensors:w8a8", HubLayout::kInt8},
    {"compressed-tensors:fp8", HubLayout::kFp8},    {"compressed-tensors:fp8-block", HubLayout::kFp8Squares}, {"compressed-tensors:nvfp4", HubLayout::kNvfp4},
    {"compressed-tensors:mxfp4", HubLayout::kMxfp4}, {"gptq", HubLayout::kGptq}, {"awq", HubLayout::kAwq}, {"nf4", HubLayout::kNf4}};
constexpr std::pair<std::string_view, int64_t> kGroups[] = {{"", 0}, {":g32", 32}, {":g64", 64}, {":g128", 128}};

bool has_groups(HubLayout layout) {
  return layout == HubLayout::kInt4 || layout == HubLayout::kInt4Zero || layout == HubLayout::kGptq || layout == HubLayout::kAwq;
}

}  // namespace

bool ExportFormat::takes_importance() const {
  if (kind == Kind::kGguf) return gguf_takes_importance(gguf);
  return kind == Kind::kQuantizedHub && (has_groups(hub) || hub == HubLayout::kNvfp4 || hub == HubLayout::kMxfp4);
}

std::vector<std::string> export_format_names() {
  std::vector<std::string> names = {"peft", "gguf-lora", "safetensors"};
  for (const auto type : kSafetensorsTypes) names.push_back(fmt::format("safetensors:{}", info(type).name));
  for (const auto name : gguf_format_names()) names.push_back(fmt::format("gguf:{}", name));
  for (const auto& [hub, layout] : kHubLayouts) names.push_back(fmt::format("{}{}", hub, has_groups(layout) ? "[:g32|:g64|:g128]" : ""));
  return names;
}

ExportFormat parse_export_format(std::string_view name) {
  ExportFormat format;
  format.name = name;
  if (name == "peft") return format;
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
  for (const auto& [hub, layout] : kHubLayouts) {
    for (const auto& [ending, group] : kGroups) {
      if (name != fmt::format("{}{}", hub, ending) || (group != 0 && !has_groups(layout))) continue;
      format.kind = Kind::kQuantizedHub;
      format.hub = layout;
      format.group = group;
      return format;
    }
  }
  fail("exports", "expected one of the forms {}, got \"{}\" — choose one of these", fmt::join(export_format_names(), ", "), name);
}

}  // namespace graft
