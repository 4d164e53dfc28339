#include "trainer/runs/loaded_model.h"

#include "trainer/adapters/adapter_files.h"
#include "trainer/runs/recipe_inputs.h"

namespace graft {

namespace fs = std::filesystem;

TemplateContext template_context(const ModelFiles& files, const Recipe* recipe) {
  std::optional<Recipe> own;
  if (files.run) {
    own = load_recipe(*files.run / "recipe.yaml", {});
    recipe = &*own;
  }
  return template_context(files.base, recipe ? recipe->data : DataOptions{});
}

LoadedModel load_model(const std::string& model, const std::string& adapter, const std::string& compute, const Recipe* recipe, const std::string& quantize_base) {
  LoadedModel loaded;
  loaded.files = find_model(model);
  loaded.decoder = load_decoder(loaded.files.base, compute_type(compute), loaded.files.run ? loaded.files.quantize_base : quantize_base);
  const auto folder = !adapter.empty() ? std::optional<fs::path>(adapter) : loaded.files.adapter;
  if (folder) loaded.adapters = load_adapter(*loaded.decoder, *folder);
  const auto rounding = loaded.files.run && adapter.empty() ? load_recipe(*loaded.files.run / "recipe.yaml", {}).adapter.quantization_aware : "none";
  if (rounding != "none") {
    loaded.served = std::make_unique<ServedWeights>(*loaded.decoder, *loaded.adapters, loaded.files.base, rounding);
    loaded.served->update();
  }
  loaded.context = template_context(loaded.files, recipe);
  return loaded;
}

}  // namespace graft
