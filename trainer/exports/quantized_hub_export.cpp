#include "trainer/exports/quantized_hub_export.h"

#include <algorithm>
#include <cmath>

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include "checkpoints/codecs/quantize_rows.h"
#include "checkpoints/safetensors_writer.h"
#include "kernels/common/error.h"
#include "trainer/exports/merged_weights.h"
#include "trainer/exports/output_place.h"
#include "trainer/exports/hub_files.h"
#include "trainer/exports/quantized_hub_config.h"
#include "trainer/exports/safetensors_export.h"

namespace graft {
namespace {

constexpr std::string_view kEnding = ".weight";

std::string module_of(const std::string& name) { return name.substr(0, name.size() - kEnding.size()); }

bool is_expert(const MergedTensor& tensor) { return is_expert_weight(*tensor.parts.front().rule); }

// Transposed matrices are no linear modules to engines.
bool is_linear(const MergedWeights& weights, const MergedTensor& tensor) {
  const auto& rule = *tensor.parts.front().rule;
  return is_linear_weight(rule) && rule.hub.ends_with(kEnding) && weights.shape(tensor).size() == 2 && !rule.hub_form.transposed;
}

// Embeddings are no linears; everything else with two dimensions may be one to an engine, and has to be named to stay plain.
bool may_be_linear(const MergedWeights& weights, const MergedTensor& tensor) {
  const auto& rule = *tensor.parts.front().rule;
  return weights.shape(tensor).size() == 2 && rule.hub.ends_with(kEnding) && rule.ours.find("embedding") == std::string::npos;
}

struct Plan {
  HubLayout layout = HubLayout::kInt4;
  int64_t group = 0;
  TensorType plain = TensorType::kBF16, blocks = TensorType::kF32;
  std::vector<bool> quantized;               // of each merged tensor
  std::vector<std::string> plain_modules, misfits;
};

// Engines read quantised experts as matrices of their own, whatever they make of them in memory.
void check_experts(const MergedWeights& weights, const ExportSource& source, const ExportFormat& format) {
  const auto found = std::find_if(weights.tensors().begin(), weights.tensors().end(), is_expert);
  if (found == weights.tensors().end()) return;
  if (weights.shape(*found).size() != 2) {
    fail("exports", "expected experts that are matrices of their own for {}, got {}, whose files and engines hold all experts in one tensor ({}) — export mxfp4, as it is published, or a "
         "form of gguf", format.name, source.spec->family, weights.name(*found));
  }
  if (format.hub.layout == HubLayout::kNf4) {
    fail("exports", "expected a model without experts for nf4, got {}: transformers stacks them in memory, where bitsandbytes quantises linear layers only — export compressed-tensors:w4a16 or "
         "another form", source.spec->family);
  }
}

Plan plan_of(const MergedWeights& weights, const ExportSource& source, const ExportFormat& format) {
  check_experts(weights, source, format);
  Plan plan;
  plan.layout = format.hub.layout;
  plan.group = format.hub.group;
  if (plan.layout == HubLayout::kGptq || plan.layout == HubLayout::kAwq) plan.plain = TensorType::kF16;
  const auto fits = [&](const MergedTensor& tensor, int64_t group) {
    const auto shape = weights.shape(tensor);
    return fits_hub_layout(plan.layout, group, shape[0], shape[1]);
  };
  for (const int64_t group : {128, 64, 32}) {
    if (plan.group != 0) break;
    const bool all = std::all_of(weights.tensors().begin(), weights.tensors().end(), [&](const MergedTensor& tensor) { return !is_linear(weights, tensor) || fits(tensor, group); });
    if (all || group == 32) plan.group = group;
  }
  plan.blocks = hub_block_type(plan.layout, plan.group);
  plan.plain_modules = {"lm_head"};
  int64_t num_quantized = 0;
  // vLLM multiplies all matrices of a layer's experts in one form.
  const bool experts_fit = std::all_of(weights.tensors().begin(), weights.tensors().end(), [&](const MergedTensor& tensor) { return !is_expert(tensor) || fits(tensor, plan.group); });
  for (const auto& tensor : weights.tensors()) {
    const bool linear = is_linear(weights, tensor), chosen = linear && fits(tensor, plan.group) && (experts_fit || !is_expert(tensor));
    plan.quantized.push_back(chosen);
    num_quantized += chosen;
    const auto module = module_of(weights.name(tensor));
    if (linear && !chosen) plan.misfits.push_back(module);
    if (!chosen && may_be_linear(weights, tensor) && module != "lm_head") plan.plain_modules.push_back(module);
  }
  if (num_quantized == 0) {
    const auto shape = plan.misfits.empty() ? "" : fmt::format(" ({} has columns in no multiple of {})", plan.misfits.front(), info(plan.blocks).block_elements);
    fail("exports", "expected linear layers that {} can hold, got none{} — choose a smaller group, gguf or safetensors", format.name, shape);
  }
  return plan;
}

// Of each column; empty where the importance matrix, which is laid out as GGUF files are, has no entry.
std::vector<float> importance_of(const ExportSource& source, const MergedTensor& tensor) {
  const auto& rule = *tensor.parts.front().rule;
  const auto& form = rule.gguf_form;
  if (!source.importance || tensor.parts.size() != 1 || form.transposed || form.column_heads > 0) return {};
  auto all = source.importance->importance_of(rule.gguf);
  const auto columns = static_cast<size_t>(rule.shape.at(1));
  const size_t first = static_cast<size_t>(form.whole.empty() ? 0 : form.first / (rule.shape.at(0) * rule.shape.at(1))) * columns;
  if (all.size() < first + columns) return {};
  return {all.begin() + static_cast<int64_t>(first), all.begin() + static_cast<int64_t>(first + columns)};
}

void write_blocks(SafetensorsDirectoryWriter& writer, const Plan& plan, const std::string& module, const std::byte* blocks, int64_t rows, int64_t columns, float global_scale) {
  const auto tensors = hub_tensors(plan.layout, plan.group, module, rows, columns);
  const auto bytes = hub_bytes(plan.layout, plan.group, blocks, rows, columns, global_scale);
  for (size_t i = 0; i < tensors.size(); ++i) writer.write(tensors[i].name, bytes[i]);
}

// What no adapter sits on and was in this form before stays as it was, scales and codes. What is adapted is rounded anew: at the base's own scales most changes would be
// rounded away together.
bool wrote_as_stored(SafetensorsDirectoryWriter& writer, const Plan& plan, MergedWeights& weights, const MergedTensor& tensor) {
  if (!MergedWeights::keeps_bytes(tensor, plan.blocks)) return false;
  const auto shape = weights.shape(tensor);
  const auto blocks = weights.bytes(tensor, plan.blocks);
  if (!keeps_blocks(plan.layout, blocks.data(), shape[0], shape[1])) return false;
  write_blocks(writer, plan, module_of(weights.name(tensor)), blocks.data(), shape[0], shape[1], 1);
  return true;
}

void write_matrix(SafetensorsDirectoryWriter& writer, const Plan& plan, MergedWeights& weights, const MergedTensor& tensor, const std::vector<float>& importance) {
  const auto shape = weights.shape(tensor);
  const int64_t rows = shape[0], columns = shape[1];
  const auto* values = reinterpret_cast<const float*>(weights.bytes(tensor, TensorType::kF32).data());
  float largest = 0;
  for (int64_t i = 0; i < rows * columns; ++i) largest = std::max(largest, std::fabs(values[i]));
  const float global_scale = nvfp4_global_scale(largest);
  const int64_t row_bytes = bytes_of(plan.blocks, std::vector<int64_t>{columns}).value();
  std::vector<std::byte> blocks(static_cast<size_t>(rows * row_bytes));
  const auto factor = weights.factor_of(tensor.parts.front(), plan.blocks);
  const auto round_block = [&](const float* of_block, int64_t count, int64_t width, std::span<const float> own_importance, std::byte* to) {
    quantize_for_hub(plan.layout, plan.group, of_block, count, width, global_scale, own_importance, to);
  };
  try {
    at::parallel_for(0, (rows + kHubSlab - 1) / kHubSlab, 1, [&](int64_t begin, int64_t end) {
      for (int64_t first = begin * kHubSlab; first < std::min(end * kHubSlab, rows); first += kHubSlab) {
        const int64_t count = std::min(kHubSlab, rows - first);
        auto* to = blocks.data() + first * row_bytes;
        if (factor) {
          std::vector<float> own(values + first * columns, values + (first + count) * columns);
          quantize_with_feedback(plan.blocks, *factor, own.data(), count, round_block, to);
        } else {
          quantize_for_hub(plan.layout, plan.group, values + first * columns, count, columns, global_scale, importance, to);
        }
      }
    });
  } catch (const UserError& error) {
    fail("exports", "{} (tensor {})", error.what(), weights.name(tensor));
  }
  write_blocks(writer, plan, module_of(weights.name(tensor)), blocks.data(), rows, columns, global_scale);
}

std::vector<ExportedTensor> described(const MergedWeights& weights, const Plan& plan) {
  std::vector<ExportedTensor> tensors;
  for (size_t i = 0; i < plan.quantized.size(); ++i) {
    const auto& merged = weights.tensors()[i];
    ExportedTensor tensor{weights.name(merged), weights.shape(merged), merged.stored_type(), plan.quantized[i] ? plan.blocks : plan.plain, merged.adapted()};
    tensor.copied = !plan.quantized[i] && MergedWeights::keeps_bytes(merged, plan.plain);
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

}  // namespace

std::vector<ExportedTensor> quantized_hub_tensors(const ExportSource& source, const ExportFormat& format) {
  const MergedWeights weights(source, NameColumn::kHub);
  return described(weights, plan_of(weights, source, format));
}

void write_quantized_hub(const ExportSource& source, const ExportFormat& format, const std::filesystem::path& path, ExportResult& result) {
  MergedWeights weights(source, NameColumn::kHub);
  const auto plan = plan_of(weights, source, format);
  result.tensors = described(weights, plan);
  if (!plan.misfits.empty()) {
    const int64_t width = plan.layout == HubLayout::kFp8Squares ? kHubSlab : info(plan.blocks).block_elements;
    result.notes.push_back(fmt::format("{} linear layers stay {}, since their columns, or those of other matrices of their experts, are no whole blocks of {}: {}{}", plan.misfits.size(),
                                       info(plan.plain).name, width, plan.misfits.front(), plan.misfits.size() > 1 ? ", ..." : ""));
  }
  std::vector<TensorDeclaration> declarations;
  for (size_t i = 0; i < plan.quantized.size(); ++i) {
    const auto& tensor = result.tensors[i];
    if (!plan.quantized[i]) {
      declarations.push_back({tensor.name, tensor.type, tensor.shape});
      continue;
    }
    const auto own = hub_tensors(plan.layout, plan.group, module_of(tensor.name), tensor.shape[0], tensor.shape[1]);
    declarations.insert(declarations.end(), own.begin(), own.end());
  }
  int64_t num_unweighed = 0;   // of quantised tensors
  StagedFolder folder(path);
  SafetensorsDirectoryWriter writer(folder.path(), declarations);
  for (size_t i = 0; i < plan.quantized.size(); ++i) {
    const auto& merged = weights.tensors()[i];
    if (plan.quantized[i]) {
      const auto importance = importance_of(source, merged);
      num_unweighed += importance.empty();
      if (!wrote_as_stored(writer, plan, weights, merged)) write_matrix(writer, plan, weights, merged, importance);
    } else {
      writer.write(weights.name(merged), weights.bytes(merged, plan.plain));
    }
    source.report(static_cast<int64_t>(i) + 1, static_cast<int64_t>(plan.quantized.size()));
  }
  writer.finish();
  if (source.importance && num_unweighed > 0) {
    if (num_unweighed == std::count(plan.quantized.begin(), plan.quantized.end(), true))
      fail("exports", "expected an importance matrix of this model's tensors, got none of them — make it with this model");
    result.notes.push_back(fmt::format("{} quantised tensors have no entry in the importance matrix", num_unweighed));
  }
  write_hub_files(source, format, plan.plain, quantized_hub_config(plan.layout, plan.group, plan.plain_modules), folder.path(), result);
  folder.commit();
  result.path = path;
  result.files = files_in(path);
  result.serve = {fmt::format("vllm serve {}", shell_word(path))};
}

}  // namespace graft
