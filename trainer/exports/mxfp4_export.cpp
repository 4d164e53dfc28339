#include "trainer/exports/mxfp4_export.h"

#include <algorithm>

#include <fmt/format.h>

#include "checkpoints/codecs/blocks_of_matrix.h"
#include "checkpoints/safetensors_writer.h"
#include "kernels/common/error.h"
#include "trainer/exports/hub_files.h"
#include "trainer/exports/merged_weights.h"
#include "trainer/exports/output_place.h"
#include "trainer/exports/safetensors_export.h"

namespace graft {
namespace {

using Mxfp4Blocks = Blocks<BlockMXFP4>;
constexpr int64_t kBlock = BlockMXFP4::kElements;
constexpr TensorType kPlain = TensorType::kBF16;

// A tensor of all experts on the hub, and GGUF's tensors of the same matrices, [E, rows, columns]: gates and ups, whose rows stand in turn on the hub, or downs.
struct StackedExperts {
  std::vector<const MergedTensor*> parts;
  int64_t experts = 0, rows = 0, columns = 0;   // rows of one part
  int64_t num_parts() const { return static_cast<int64_t>(parts.size()); }
};

StackedExperts stacked_experts(const MergedTensor& merged, const MergedWeights& of_gguf) {
  StackedExperts stacked;
  const auto& first = *merged.parts.front().rule;
  stacked.rows = first.shape.at(0);
  stacked.columns = first.shape.at(1);
  for (int part = 0; part < first.hub_form.interleaved; ++part) {
    const auto& name = merged.parts.at(static_cast<size_t>(part)).rule->gguf;
    const auto found = std::find_if(of_gguf.tensors().begin(), of_gguf.tensors().end(), [&](const MergedTensor& tensor) { return of_gguf.name(tensor) == name; });
    stacked.parts.push_back(&*found);
    stacked.experts = static_cast<int64_t>(found->parts.size());
  }
  return stacked;
}

bool is_stacked(const MergedTensor& merged) { return is_expert_weight(*merged.parts.front().rule); }

void check_stacked(const ExportSource& source, const MergedWeights& of_hub, const ExportFormat& format) {
  const auto& tensors = of_hub.tensors();
  const auto found = std::find_if(tensors.begin(), tensors.end(), is_stacked);
  if (found == tensors.end() || of_hub.shape(*found).size() != 3) {
    fail("exports", "expected a family whose files hold all experts in one tensor (gpt_oss) for {}, got {} — export compressed-tensors:mxfp4 or gguf:MXFP4", format.name, source.spec->family);
  }
  for (const auto& merged : tensors) {
    const auto& rule = *merged.parts.front().rule;
    if (!is_stacked(merged) || rule.shape.at(1) % kBlock == 0) continue;
    fail("exports", "expected experts' columns in whole blocks of {} for {}, got {} ({}) — export a form of gguf, or safetensors", kBlock, format.name, rule.shape[1], of_hub.name(merged));
  }
}

std::vector<ExportedTensor> described_mxfp4(const MergedWeights& of_hub, const MergedWeights& of_gguf) {
  std::vector<ExportedTensor> tensors;
  for (const auto& merged : of_hub.tensors()) {
    const bool stacked = is_stacked(merged);
    ExportedTensor tensor{of_hub.name(merged), of_hub.shape(merged), merged.stored_type(), stacked ? TensorType::kMXFP4 : kPlain, merged.adapted()};
    tensor.copied = MergedWeights::keeps_bytes(merged, tensor.type);
    if (stacked) {
      const auto experts = stacked_experts(merged, of_gguf);
      tensor.shape = {experts.experts, experts.num_parts() * experts.rows, experts.columns};
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

// Neighbours share a byte, the even one in its low nibble; ggml's blocks have elements i and i + 16 there.
void write_experts_mxfp4(SafetensorsDirectoryWriter& writer, const std::string& name, const StackedExperts& stacked, MergedWeights& of_gguf) {
  const int64_t row_blocks = stacked.columns / kBlock, parts = stacked.num_parts();
  std::vector<uint8_t> nibbles(static_cast<size_t>(stacked.experts * parts * stacked.rows * stacked.columns / 2)), exponents(nibbles.size() / (kBlock / 2));
  for (int64_t part = 0; part < parts; ++part) {
    const Mxfp4Blocks blocks{of_gguf.bytes(*stacked.parts[static_cast<size_t>(part)], TensorType::kMXFP4).data(), stacked.columns};
    for (int64_t row = 0; row < stacked.experts * stacked.rows; ++row) {   // of all experts
      for (int64_t b = 0; b < row_blocks; ++b) {
        const auto block = blocks.at(row, b * kBlock);
        const auto to = static_cast<size_t>((row * parts + part) * row_blocks + b);
        exponents[to] = block.exponent;
        for (int64_t i = 0; i < kBlock; i += 2) nibbles[to * (kBlock / 2) + static_cast<size_t>(i / 2)] = static_cast<uint8_t>(code_of(block, i) | code_of(block, i + 1) << 4);
      }
    }
  }
  writer.write(name + "_blocks", std::as_bytes(std::span(nibbles)));
  writer.write(name + "_scales", std::as_bytes(std::span(exponents)));
}

}  // namespace

std::vector<ExportedTensor> mxfp4_tensors(const ExportSource& source, const ExportFormat& format) {
  const MergedWeights of_hub(source, NameColumn::kHub), of_gguf(source, NameColumn::kGguf);
  check_stacked(source, of_hub, format);
  return described_mxfp4(of_hub, of_gguf);
}

void write_mxfp4(const ExportSource& source, const ExportFormat& format, const std::filesystem::path& path, ExportResult& result) {
  MergedWeights of_hub(source, NameColumn::kHub), of_gguf(source, NameColumn::kGguf);
  check_stacked(source, of_hub, format);
  result.tensors = described_mxfp4(of_hub, of_gguf);
  std::vector<TensorDeclaration> declarations;
  for (const auto& tensor : result.tensors) {
    if (tensor.type == kPlain) {
      declarations.push_back({tensor.name, tensor.type, tensor.shape});
      continue;
    }
    const int64_t experts = tensor.shape[0], rows = tensor.shape[1], row_blocks = tensor.shape[2] / kBlock;
    declarations.push_back({tensor.name + "_blocks", TensorType::kU8, {experts, rows, row_blocks, kBlock / 2}});
    declarations.push_back({tensor.name + "_scales", TensorType::kU8, {experts, rows, row_blocks}});
  }
  StagedFolder folder(path);
  SafetensorsDirectoryWriter writer(folder.path(), declarations);
  int64_t done = 0;
  for (const auto& merged : of_hub.tensors()) {
    if (is_stacked(merged)) write_experts_mxfp4(writer, of_hub.name(merged), stacked_experts(merged, of_gguf), of_gguf);
    else writer.write(of_hub.name(merged), of_hub.bytes(merged, kPlain));
    source.report(++done, static_cast<int64_t>(of_hub.tensors().size()));
  }
  writer.finish();
  // As OpenAI's own files say it.
  const nlohmann::ordered_json quantization = {{"quant_method", "mxfp4"}, {"modules_to_not_convert", {"model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"}}};
  write_hub_files(source, format, kPlain, quantization, folder.path(), result);
  folder.commit();
  result.path = path;
  result.files = files_in(path);
  result.serve = {fmt::format("vllm serve {}", shell_word(path))};
}

}  // namespace graft
