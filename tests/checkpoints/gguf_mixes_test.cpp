// The type of each tensor beside what llama.cpp's llama_model_quantize chose (gguf_mixes.txt, which gguf_mixes_golden.py recorded).
#include <algorithm>
#include <fstream>
#include <map>
#include <sstream>

#include <gtest/gtest.h>

#include "checkpoints/codecs/gguf_types.h"
#include "kernels/common/error.h"
#include "tests/support/files.h"

namespace graft {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  return parts;
}

struct Kind {
  std::vector<int64_t> shape;
  std::vector<int> layers;   // empty: outside the layers
};

struct Model {
  std::string name;
  GgufModelFacts facts;
  std::map<std::string, Kind> kinds;
  struct Row {
    std::string form;   // with + at its end: with an importance matrix
    std::vector<std::string> kinds;
    std::string types;
  };
  std::vector<Row> rows;
};

Model model_of(std::istringstream& line) {
  Model model;
  std::string word;
  int tied = 0;
  line >> model.name >> model.facts.architecture >> word >> model.facts.num_layers >> word >> model.facts.num_experts >> word >> model.facts.heads_per_group >> word >> tied;
  model.facts.tied_embeddings = tied == 1;
  return model;
}

std::vector<Model> recorded() {
  std::vector<Model> models;
  std::ifstream in(test::source_dir() / "tests/checkpoints/gguf_mixes.txt");
  for (std::string text; std::getline(in, text);) {
    std::istringstream line(text);
    std::string word, name, shape, layers;
    line >> word;
    if (word == "#") continue;
    if (word == "model") {
      models.push_back(model_of(line));
    } else if (word == "tensor") {
      line >> name >> shape >> layers;
      Kind& kind = models.back().kinds[name];
      for (const auto& size : split(shape, 'x')) kind.shape.push_back(std::stoll(size));
      if (layers != "-")
        for (const auto& layer : split(layers, ',')) kind.layers.push_back(std::stoi(layer));
      auto& of_values = models.back().facts.value_layers;
      if (gguf_holds_values(name)) of_values.insert(of_values.end(), kind.layers.begin(), kind.layers.end());
      std::sort(of_values.begin(), of_values.end());
    } else {
      line >> name;
      std::getline(line >> std::ws, shape);
      models.back().rows.push_back({word, split(name, ','), shape});
    }
  }
  return models;
}

// "Q6_K*2 Q4_K*10" of a kind.
std::string runs_of(GgufFormat format, const std::string& name, const Kind& kind, const GgufModelFacts& facts) {
  std::vector<std::pair<std::string_view, int>> runs;
  const auto add = [&](const std::string& tensor) {
    const auto type = info(gguf_type_for(format, tensor, kind.shape, facts)).name;
    if (runs.empty() || runs.back().first != type) runs.emplace_back(type, 0);
    ++runs.back().second;
  };
  if (kind.layers.empty()) add(name);
  for (const int layer : kind.layers) add(std::string(name).replace(name.find('*'), 1, std::to_string(layer)));
  std::string text;
  for (const auto& [type, count] : runs) text += fmt::format("{}{}*{}", text.empty() ? "" : " ", type, count);
  return text;
}

TEST(GgufMixes, AreLlamaCpps) {
  const auto models = recorded();
  ASSERT_EQ(models.size(), 13u);
  int num_rows = 0;
  for (const Model& model : models) {
    for (const auto& row : model.rows) {
      const bool weighted = row.form.ends_with('+');
      const auto format = gguf_format_from_name(row.form.substr(0, row.form.size() - (weighted ? 1 : 0)));
      ASSERT_TRUE(format) << row.form;
      if (*format == GgufFormat::kMXFP4 && model.facts.num_experts == 0) continue;   // there llama.cpp's is Q8_0
      auto facts = model.facts;
      facts.has_importance = weighted;
      for (const auto& name : row.kinds) {
        EXPECT_EQ(runs_of(*format, name, model.kinds.at(name), facts), row.types) << model.name << " as " << row.form << ": " << name;
        ++num_rows;
      }
    }
  }
  EXPECT_GT(num_rows, 2000);
}

}  // namespace
}  // namespace graft
