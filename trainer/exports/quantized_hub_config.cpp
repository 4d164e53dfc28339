#include "trainer/exports/quantized_hub_config.h"

#include <fmt/format.h>

namespace graft {
namespace {

using nlohmann::ordered_json;

// Dynamic quantisation of what is multiplied, which engines do and graft does not.
ordered_json activations(int bits, const char* type, const char* strategy) {
  return {{"num_bits", bits}, {"type", type}, {"strategy", strategy}, {"symmetric", true}, {"dynamic", true}};
}

ordered_json compressed_tensors(HubLayout layout, int64_t group, const std::vector<std::string>& plain) {
  const bool is_float = layout != HubLayout::kInt4 && layout != HubLayout::kInt4Zero && layout != HubLayout::kInt8;
  const bool of_8_bits = layout == HubLayout::kInt8 || layout == HubLayout::kFp8 || layout == HubLayout::kFp8Squares;
  ordered_json weights = {{"num_bits", of_8_bits ? 8 : 4}, {"type", is_float ? "float" : "int"}, {"symmetric", layout != HubLayout::kInt4Zero}, {"dynamic", false}};
  ordered_json input = nullptr;
  const char* format = "pack-quantized";
  switch (layout) {
    case HubLayout::kInt8:
      weights["strategy"] = "channel";
      input = activations(8, "int", "token");
      format = "int-quantized";
      break;
    case HubLayout::kFp8:
      weights["strategy"] = "channel";
      input = activations(8, "float", "token");
      format = "float-quantized";
      break;
    case HubLayout::kFp8Squares:
      weights["strategy"] = "block";
      weights["block_structure"] = {kHubSlab, kHubSlab};
      input = activations(8, "float", "group");
      input["group_size"] = kHubSlab;
      format = "float-quantized";
      break;
    case HubLayout::kNvfp4:
      weights["strategy"] = "tensor_group";
      weights["group_size"] = 16;
      format = "nvfp4-pack-quantized";
      break;
    case HubLayout::kMxfp4:
      weights["strategy"] = "group";
      weights["group_size"] = 32;
      format = "mxfp4-pack-quantized";
      break;
    default:
      weights["strategy"] = "group";
      weights["group_size"] = group;
  }
  const ordered_json scheme = {{"targets", {"Linear"}}, {"weights", weights}, {"input_activations", input}, {"output_activations", nullptr}};
  return {{"quant_method", "compressed-tensors"}, {"format", format}, {"quantization_status", "compressed"}, {"config_groups", {{"group_0", scheme}}}, {"ignore", plain}, {"kv_cache_scheme", nullptr}};
}

}  // namespace

ordered_json quantized_hub_config(HubLayout layout, int64_t group, const std::vector<std::string>& plain) {
  switch (layout) {
    case HubLayout::kGptq: {
      ordered_json config = {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", group}, {"desc_act", false}, {"sym", true}, {"lm_head", false}, {"checkpoint_format", "gptq"}};
      for (const auto& module : plain)   // GPTQModel's and vLLM's way of leaving a module out: a regular expression behind "-:"
        if (module != "lm_head") config["dynamic"][fmt::format("-:^{}$", module)] = ordered_json::object();
      return config;
    }
    case HubLayout::kAwq:
      return {{"quant_method", "awq"}, {"bits", 4}, {"group_size", group}, {"zero_point", true}, {"version", "gemm"}, {"modules_to_not_convert", plain}};
    case HubLayout::kNf4:
      return {{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}, {"load_in_8bit", false}, {"_load_in_4bit", true}, {"_load_in_8bit", false}, {"bnb_4bit_quant_type", "nf4"},
              {"bnb_4bit_use_double_quant", false}, {"bnb_4bit_compute_dtype", "bfloat16"}, {"bnb_4bit_quant_storage", "uint8"}, {"llm_int8_skip_modules", plain},
              {"llm_int8_threshold", 6.0}, {"llm_int8_enable_fp32_cpu_offload", false}, {"llm_int8_has_fp16_weight", false}};
    default:
      return compressed_tensors(layout, group, plain);
  }
}

}  // namespace graft
