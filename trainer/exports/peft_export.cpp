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

}  // namespace

std::vector<ExportedTensor> peft_tensors(const AdapterSet& adapters) {
  std::vector<ExportedTensor> tensors;
  for (const auto& adapter : adapters.adapters()) {
    for (const bool is_a : {true, false}) {
      ExportedTensor tensor;
      const int64_t rank = adapter.num_experts * adapter.rank;
      tensor.name = "base_model.model." + peft_module(adapters, adapter) + (is_a ? ".lora_A.weight" : ".lora_B.weight");
      tensor.shape = is_a ? std::vector<int64_t>{rank, adapter.inputs} : std::vector<int64_t>{adapter.outputs, rank};
      tensor.adapted = true;
      tensors.push_back(std::move(tensor));
    }
  }
  return tensors;
}

void write_peft(const ExportSource& source, const AdapterSet* adapters, const AdapterOptions& options, const ExportFormat& format,
                const std::filesystem::path& path, ExportResult& result) {
  if (!adapters || adapters->adapters().empty()) {
    fail("exports", "expected an adapter to write as peft, got none — give --adapter, or export safetensors");
  }
  result.tensors = peft_tensors(*adapters);
  StagedFolder folder(path);
  auto named = options;
  named.targets = target_names(source);
  save_adapter(*adapters, named, source.base_name, folder.path());
  if (source.chat_template) write_file_atomic(folder.path() / "chat_template.jinja", source.chat_template->source());
  write_file_atomic(folder.path() / "README.md", model_card(source, format, result));
  folder.commit();
  source.report(1, 1);
  result.path = path;
  result.files = files_in(path);
  const auto adapter = shell_word(path);
  if (source.is_gguf()) {
    auto base_folder = source.base.parent_path();
    if (base_folder.empty()) base_folder = ".";
    const auto code = fmt::format(
        "import peft, transformers; model = peft.PeftModel.from_pretrained("
        "transformers.AutoModelForCausalLM.from_pretrained('{}', gguf_file='{}'), '{}')",
        base_folder.string(), source.base.filename().string(), path.string());
    result.serve = {"python -c " + fmt::format("\"{}\"", code)};
    result.notes.push_back("PEFT computes with the base's dequantised weights; gguf-lora serves the adapter on the file itself in llama.cpp");
  } else {
    result.serve = {fmt::format("vllm serve {} --enable-lora --max-lora-rank {} --lora-modules adapter={}", shell_word(source.base), options.rank, adapter)};
  }
}

}  // namespace graft
