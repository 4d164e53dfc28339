// The schema of a recipe: the tables from which recipe.cpp reads, checks, prints and documents it.
#pragma once
#include "trainer/recipe/field.h"
#include "trainer/recipe/recipe.h"

namespace graft {

const Table<Recipe>& recipe_table();

// What no single key shows: keys that need or exclude each other. `root` tells where the keys stand.
void check_together(Reader& reader, const YamlValue& root, const Recipe& recipe);

}  // namespace graft
