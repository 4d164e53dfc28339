// The options that every command on a recipe shares.
#pragma once
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "trainer/recipe/recipe.h"

namespace graft {

struct RecipeOptions {
  std::string recipe, out;
  std::vector<std::string> overrides;

  void add_to(CLI::App& command) {
    command.add_option("RECIPE", recipe, "recipe file (YAML); keys: docs/recipes.md")->required();
    command.add_option("--set", overrides, "override a key: --set optimizer.batch_rows=8 (repeatable)")->take_all();
    command.add_option("--out", out, "the run's folder, instead of run.out");
  }
  Recipe load() const {
    auto all = overrides;
    if (!out.empty()) all.push_back("run.out=" + out);
    return load_recipe(recipe, all);
  }
};

}  // namespace graft
