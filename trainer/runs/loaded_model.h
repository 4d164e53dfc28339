// What a MODEL argument names, for commands and as a teacher: weights with adapters, tokenizer and the chat template it is served with.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "data/rows/dataset.h"
#include "data/templates/conversation.h"
#include "trainer/adapters/adapter_set.h"
#include "trainer/exports/served_weights.h"
#include "trainer/models/model_files.h"
#include "trainer/recipe/recipe.h"

namespace graft {

// The tokenizer and template of a model, no weights. A run's own recipe, else `recipe`, decides template, its arguments and date; without one
// they are the base's, with the date "auto".
TemplateContext template_context(const ModelFiles& files, const Recipe* recipe = nullptr);

struct LoadedModel {
  ModelFiles files;
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<AdapterSet> adapters;   // null: the base alone
  std::unique_ptr<ServedWeights> served;  // of a run that trained through a rounding: its model is the rounded one
  TemplateContext context;
};

// adapter: a PEFT folder, or empty for the run's own. quantize_base: where the model is no run.
LoadedModel load_model(const std::string& model, const std::string& adapter, const std::string& compute, const Recipe* recipe = nullptr, const std::string& quantize_base = "none");

}  // namespace graft
