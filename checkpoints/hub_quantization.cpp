// quantization_config of config.json, checked key by key where a key changes what the tensors mean.
#include <array>

#include <fmt/ranges.h>

#include "checkpoints/quantized_tensors.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

using nlohmann::ordered_json;
using Method = HubQuantization::Method;

class Config {
 public:
  Config(const ordered_json& json, const std::filesystem::path& file) : json_(json), file_(file) {}

  std::string text(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? "" : found->is_string() ? found->get<std::string>() : found->dump();
  }
  [[noreturn]] void refuse(const std::string& expected, const char* key) const {
    const auto got = text(key);
    fail("checkpoints", "expected {} in quantization_config, got {}: {} ({}) — take the unquantised model, a GGUF file, or one quantised in a form that docs/formats.md lists", expected, key,
         got.empty() ? "nothing" : got, file_.string());
  }
  template <size_t kCount>
  void one_of(const char* key, const std::array<std::string_view, kCount>& allowed) const {
    const auto got = text(key);
    for (const auto one : allowed)
      if (got == one) return;
    refuse(fmt::format("{} to be one of {}", key, fmt::join(allowed, ", ")), key);
  }
  // Absent, null, false or empty.
  void absent(const char* key, const char* what) const {
    const auto found = json_.find(key);
    if (found == json_.end() || found->is_null() || *found == false || ((found->is_object() || found->is_array()) && found->empty())) return;
    refuse(fmt::format("no {}", what), key);
  }
  const ordered_json& json() const { return json_; }

 private:
  const ordered_json& json_;
  const std::filesystem::path& file_;
};

void check_compressed_tensors(const Config& config) {
  config.one_of("format", std::array<std::string_view, 7>{"pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mixed-precision"});
  config.one_of("quantization_status", std::array<std::string_view, 2>{"compressed", ""});
  config.absent("transform_config", "rotations (transform_config)");
  const auto sparsity = config.json().value("sparsity_config", ordered_json());
  if (sparsity.is_object() && !sparsity.empty() && sparsity.value("format", "dense") != "dense") config.refuse("no sparsity", "sparsity_config");
}

}  // namespace

HubQuantization hub_quantization(const ordered_json& quantization_config, const std::filesystem::path& file) {
  const Config config(quantization_config, file);
  HubQuantization quantization;
  const auto method = config.text("quant_method");
  if (method == "compressed-tensors") {
    check_compressed_tensors(config);
  } else if (method == "fp8") {
    quantization.method = Method::kFp8;
    config.one_of("fmt", std::array<std::string_view, 2>{"e4m3", ""});
    if (const auto block = config.json().value("weight_block_size", ordered_json()); !block.is_null() && block != ordered_json::array({128, 128})) config.refuse("blocks of 128 x 128", "weight_block_size");
  } else if (method == "gptq") {
    quantization.method = Method::kGptq;
    config.one_of("bits", std::array<std::string_view, 1>{"4"});
    config.one_of("checkpoint_format", std::array<std::string_view, 3>{"gptq", "gptq_v2", ""});
    quantization.gptq_zero_offset = config.text("checkpoint_format") == "gptq_v2" ? 0 : 1;
  } else if (method == "awq") {
    quantization.method = Method::kAwq;
    config.one_of("bits", std::array<std::string_view, 1>{"4"});
    config.one_of("version", std::array<std::string_view, 3>{"gemm", "GEMM", ""});
  } else if (method == "bitsandbytes") {
    quantization.method = Method::kBitsAndBytes;
    config.absent("load_in_8bit", "8-bit weights of bitsandbytes");
    config.one_of("bnb_4bit_quant_type", std::array<std::string_view, 1>{"nf4"});
  } else {
    config.refuse("quant_method to be one of compressed-tensors, fp8, gptq, awq, bitsandbytes, mxfp4", "quant_method");
  }
  return quantization;
}

}  // namespace graft
