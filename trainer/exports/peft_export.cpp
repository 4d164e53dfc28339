#include "trainer/exports/peft_export.h"

#include <algorithm>

#include <fmt/format.h>

#include "checkpoints/atomic_file.h"
#include "kernels/common/error.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/adapters/peft_layout.h"
#include "trainer/exports/hub_files.h"
#include "trainer/exports/model_card.h"
#include "trainer/exports/output_place.h"

namespace graft {
namespace {

std::string last_name(const std::string& module) { return module.substr(module.rfind('.') + 1); }

// "q_proj" for every layer, where each name that is adapted is adapted in all layers; else the modules' full names.
std::vector<std::string> target_names(const ExportSource& source) {
  std::vector<std::string> modules, names;
  for (const auto& weight : *source.weights) {
    if (!source.updates.contains(weight.rule)) continue;
    const auto module = weight.rule->module_name();
    if (!modules.empty() && modules.back() == module) continue;   // of experts
    modules.push_back(module);
    if (std::find(names.begin(), names.end(), last_name(modules.back())) == names.end()) names.push_back(last_name(modules.back()));
  }
  for (const auto& weight : *source.weights) {
    const auto& hub = weight.rule->hub;
    if (source.updates.contains(weight.rule) || !hub.ends_with(".weight")) continue;
    const auto name = last_name(weight.rule->module_name());
    if (std::find(names.begin(), names.end(), name) != names.end()) return modules;   // PEFT would adapt this one too
  }
  return names;
}

void check_experts_apart(const Decoder& decoder, const ExportFormat& format) {
  const auto& family = decoder.spec().family;
  if (!decoder.spec().experts()) fail("exports", "expected a model with experts for {}, got {} — export peft", format.name, family);
  for (const auto& weight : decoder.weights()) {
    if (!is_expert_weight(*weight.rule) || !own_module(*weight.rule).empty()) continue;
    fail("exports", "expected experts that are modules of their own for {}, got {}, whose files and engines hold all experts in one tensor ({}) — export peft, which these engines read",
         format.name, family, weight.rule->hub);
  }
}

bool has_experts_apart(const AdapterSet& adapters) {
  return std::any_of(adapters.adapters().begin(), adapters.adapters().end(), [](const Adapter& adapter) { return adapter.is_bank && !own_module(*adapter.rules[0]).empty(); });
}

// The ranks that vLLM's --max-lora-rank takes.
int64_t rank_in_vllm(const AdapterSet& adapters) {
  int64_t largest = 1;
  for (const auto& adapter : adapters.adapters()) largest = std::max(largest, adapter.rank);
  for (const int64_t rank : {1, 8, 16, 32, 64, 128, 256, 320, 512}) {
    if (rank >= largest) return rank;
  }
  return largest;
}

}  // namespace

std::vector<ExportedTensor> peft_tensors(const AdapterSet& adapters, const AdapterOptions& options, const ExportFormat& format) {
  std::vector<ExportedTensor> tensors;
  const auto add = [&](const std::string& module, int64_t rank, int64_t inputs, int64_t outputs) {
    for (const bool is_a : {true, false}) {
      ExportedTensor tensor;
      tensor.name = "base_model.model." + module + (is_a ? ".lora_A.weight" : ".lora_B.weight");
      tensor.shape = is_a ? std::vector<int64_t>{rank, inputs} : std::vector<int64_t>{outputs, rank};
      tensor.adapted = true;
      tensors.push_back(std::move(tensor));
    }
  };
  if (format.experts_apart) {
    check_experts_apart(adapters.decoder(), format);
    for (const auto& [module, factors] : modules_of_experts(adapters, nullptr, options.rank)) add(module, factors.rank, factors.in, factors.out);
  } else {
    for (const auto& adapter : adapters.adapters()) add(peft_module(adapters, adapter), adapter.num_experts * adapter.rank, adapter.inputs, adapter.outputs);
  }
  return tensors;
}

void write_peft(const ExportSource& source, const AdapterSet* adapters, const AdapterOptions& options, const ExportFormat& format,
                const std::filesystem::path& path, ExportResult& result) {
  if (!adapters || adapters->adapters().empty()) {
    fail("exports", "expected an adapter to write as peft, got none — give --adapter, or export safetensors");
  }
  result.tensors = peft_tensors(*adapters, options, format);
  const bool only_in_peft = !format.experts_apart && has_experts_apart(*adapters);
  if (only_in_peft) result.notes.push_back("PEFT with transformers 5 loads this layout of experts; vLLM wants peft:per-expert for this family");
  StagedFolder folder(path);
  auto named = options;
  named.targets = target_names(source);
  save_adapter(*adapters, named, source.base_name, folder.path(), format.experts_apart);
  if (source.chat_template) write_file_atomic(folder.path() / "chat_template.jinja", source.chat_template->source());
  write_file_atomic(folder.path() / "README.md", model_card(source, format, result));
  folder.commit();
  source.report(1, 1);
  result.path = path;
  result.files = files_in(path);
  const auto adapter = shell_word(path);
  if (source.is_gguf() || only_in_peft) {
    auto base_folder = source.is_gguf() ? source.base.parent_path() : source.base;
    if (base_folder.empty()) base_folder = ".";
    const auto file = source.is_gguf() ? fmt::format(", gguf_file='{}'", source.base.filename().string()) : "";
    result.serve = {fmt::format("python -c \"import peft, transformers; model = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained('{}'{}), '{}')\"",
                                base_folder.string(), file, path.string())};
    if (source.is_gguf()) result.notes.push_back("PEFT computes with the base's dequantised weights; gguf-lora serves the adapter on the file itself in llama.cpp");
  } else {
    result.serve = {fmt::format("vllm serve {} --enable-lora --max-lora-rank {} --lora-modules adapter={}", shell_word(source.base), rank_in_vllm(*adapters), adapter)};
  }
}

}  // namespace graft
