// A LoRA adapter as PEFT 0.21 saves it: a folder with adapter_config.json and adapter_model.safetensors.
// W' = W + scaling * B A, A [rank, in], B [out, rank]; scaling = alpha / rank, or alpha / sqrt(rank) with rsLoRA (arXiv
// 2312.03732).
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

struct LoraFactors {
  int64_t rank = 0, in = 0, out = 0;
  std::vector<float> a;  // [rank, in], row-major
  std::vector<float> b;  // [out, rank], row-major
  // Of a parameter that holds all experts: rank is experts * r, row e * r + j of A and column j * experts + e of B belong to expert e.
  bool of_experts = false;
};

struct PeftAdapter {
  int64_t rank = 8;
  double alpha = 8;
  bool use_rslora = false;
  double dropout = 0;  // of training; plays no part when the adapter is used
  // Module name, or its end behind a dot, to its own rank or alpha: "v_proj", "layers.0.self_attn.q_proj".
  std::map<std::string, int64_t> rank_pattern;
  std::map<std::string, double> alpha_pattern;
  std::vector<std::string> target_modules;  // as in the config: {"q_proj", ...}; one element for PEFT's regular expressions
  bool target_is_expression = false;        // target_modules[0] is a regular expression or "all-linear"
  std::vector<std::string> target_parameters;  // parameters, named or by their end: "mlp.experts.gate_up_proj", "mlp.down_proj.weight"
  std::string base_model_name_or_path;
  std::string task_type = "CAUSAL_LM";
  // "model.layers.0.self_attn.q_proj" to its factors. Two parameters of one module are "mlp.experts.base_layer" and "mlp.experts".
  std::map<std::string, LoraFactors> modules;

  int64_t rank_of(std::string_view module) const;
  double scaling_of(std::string_view module) const;
};

// UserError for anything but plain LoRA (DoRA, biases, modules_to_save, layer replication, keys that are
// unknown here and switched on): used as plain LoRA it would be another model. So for factors that miss their partner or whose
// shapes contradict each other or the config. F32, F16 and BF16 are read.
PeftAdapter read_peft_adapter(const std::filesystem::path& folder);

// Writes float32 factors, the config last: a folder with a config is complete. UserError when ranks contradict the patterns.
void write_peft_adapter(const std::filesystem::path& folder, const PeftAdapter& adapter);

}  // namespace graft
