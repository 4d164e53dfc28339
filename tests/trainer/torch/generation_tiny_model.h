// A tiny random model as a Hugging Face directory, and its decoder in float32, for tests of generation and evaluation.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include <nlohmann/json.hpp>

#include "checkpoints/safetensors_writer.h"
#include "tests/support/files.h"
#include "tests/trainer/torch/tiny_families.h"
#include "trainer/generation/sampling.h"
#include "trainer/models/families/family.h"
#include "trainer/models/model_files.h"

namespace graft::test {

// vocab_size at least what the test's tokenizer has. `damaged`: the value of weights whose hub names contain it.
inline void write_tiny_model(const std::filesystem::path& folder, const std::string& model_type, int64_t vocab_size = 258, const std::pair<std::string, float>& damaged = {}) {
  std::filesystem::create_directories(folder);
  const auto config = tiny_config(model_type, vocab_size);
  write_file(folder / "config.json", config.dump());
  const auto& family = family_of_model_type(model_type);
  const auto map = family.weight_map(family.spec_from_config(config));
  std::vector<TensorDeclaration> declarations;
  std::vector<const WeightRule*> rules;   // of the stored tensors: several of ours may be one
  for (const auto& rule : map.rules) {
    if (!rules.empty() && std::any_of(rules.begin(), rules.end(), [&](const WeightRule* other) { return other->hub == rule.hub; })) continue;
    declarations.push_back({rule.hub, TensorType::kF32, rule.stored_shape(NameColumn::kHub)});
    rules.push_back(&rule);
  }
  SafetensorsDirectoryWriter writer(folder, declarations);
  for (size_t index = 0; index < rules.size(); ++index) {
    const auto& rule = *rules[index];
    int64_t elements = 1;
    for (const auto size : declarations[index].shape) elements *= size;
    std::vector<float> values(static_cast<size_t>(elements));
    for (size_t e = 0; e < values.size(); ++e) {
      const double uniform = 2 * counter_uniform(7, index, e) - 1;
      const double centre = rule.shape.size() == 1 && rule.ours.ends_with(".weight") ? 1 : 0;
      values[e] = static_cast<float>(rule.shape.size() == 1 ? centre + 0.3 * uniform : 0.45 * uniform);
      if (!damaged.first.empty() && rule.hub.find(damaged.first) != std::string::npos) values[e] = damaged.second;
    }
    writer.write(rule.hub, std::as_bytes(std::span(values)));
  }
  writer.finish();
}

struct TinyModel {
  TemporaryFolder folder;
  std::unique_ptr<Decoder> decoder;
  explicit TinyModel(const std::string& model_type, int64_t vocab_size = 258, const std::pair<std::string, float>& damaged = {}) {
    write_tiny_model(folder.path(), model_type, vocab_size, damaged);
    decoder = load_decoder(folder.path(), ComputeType::kFloat32);
  }
};

}  // namespace graft::test
