#include "trainer/recipe/recipe.h"

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "kernels/common/error.h"
#include "trainer/recipe/recipe_schema.h"
#include "trainer/recipe/yaml_writer.h"

namespace graft {
namespace {

std::string read_text(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    fail("recipe", "expected a recipe file, got the folder {} — a run folder's recipe is its recipe.yaml", path.string());
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("recipe", "expected a recipe file, got {} ({})", path.string(), std::filesystem::exists(path, error) ? "not readable" : "not found");
  const std::uintmax_t bytes = std::filesystem::file_size(path, error);
  if (!error && bytes > (1 << 20)) fail("recipe", "expected at most 1 MiB of YAML, got {} bytes ({}) — is this a recipe?", bytes, path.string());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// A path as an artefact may hold it: never absolute. Below the home folder it is ~/..., unless `folder` lies there too, so that neither the
// host's layout nor the user's name is written.
std::string portable_path(const std::string& path, const std::filesystem::path& folder) {
  const auto whole = std::filesystem::absolute(path).lexically_normal();
  const auto base = std::filesystem::absolute(folder.empty() ? "." : folder).lexically_normal() / "";
  const char* home_variable = std::getenv("HOME");
  if (home_variable != nullptr && home_variable[0] == '/' && home_variable[1] != '\0') {
    const auto home = std::filesystem::path(home_variable).lexically_normal();
    const auto inside = [&](const std::filesystem::path& candidate) {
      const auto below = candidate.lexically_relative(home);
      return !below.empty() && below.begin()->string() != "..";
    };
    if (inside(whole) && !inside(base)) return fmt::format("~/{}", whole.lexically_relative(home).string());
  }
  return whole.lexically_relative(base).string();
}

}  // namespace

Recipe parse_recipe(const std::string& text, const std::string& name, const std::filesystem::path& folder,
                    const std::vector<std::string>& overrides) {
  YamlValue root = parse_yaml(text, name);
  for (const std::string& override_text : overrides) apply_override(root, override_text);
  static const std::vector<std::string> kKnownKeys = [] {
    std::vector<std::string> keys;
    for (const DocumentedKey& key : document_table(recipe_table())) keys.push_back(key.key);
    return keys;
  }();
  Reader reader(name, folder, kKnownKeys);
  Recipe recipe;
  read_table(reader, root, recipe, recipe_table());
  if (root.kind == YamlValue::Kind::kMap) check_together(reader, root, recipe);
  reader.finish();
  return recipe;
}

Recipe load_recipe(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  return parse_recipe(read_text(path), path.string(), path.parent_path(), overrides);
}

nlohmann::ordered_json resolved_json(const Recipe& recipe, const std::filesystem::path& folder) {
  return print_table(recipe, recipe_table(), [&](const std::string& path, bool of_working_directory) -> Json {
    if (path.empty()) return path;
    return portable_path(path, of_working_directory ? std::filesystem::path() : folder);
  });
}

std::string resolved_yaml(const Recipe& recipe, const std::filesystem::path& folder) {
  return "# Every key of this run, defaults included. Paths are relative to this file; run.out and run.cache to the working directory.\n" +
         write_yaml(resolved_json(recipe, folder));
}

std::string recipe_documentation() {
  std::string text =
      "# Recipes\n\n"
      "A recipe is one YAML file that describes a complete run. `graft plan RECIPE` shows what it will do before anything is done;\n"
      "`graft train RECIPE` does it. Every key below that a recipe leaves out has the default shown; an unknown, missing, repeated or\n"
      "ill-typed key is an error that names file, line and column.\n\n"
      "- **Numbers** are YAML 1.2: `2e-4` is a number. Only `true` and `false` are booleans.\n"
      "- **Paths** in the file are relative to the recipe's folder, except `run.out` and `run.cache`, which are relative to the working\n"
      "  directory. Paths given by `--set` are relative to the working directory. `~/` is the home folder.\n"
      "- **`--set key=value`** changes one key from the command line and may be repeated; the value is YAML, and numbers in the key are\n"
      "  positions in lists: `--set data.train.0.path=rows.csv --set optimizer.learning_rate=2e-4 --set 'export=[gguf:F16]'`.\n"
      "- **Anchors and aliases** (`&name`, `*name`, `<<: *name`) may share a prompt between sources.\n\n"
      "This page is printed from the program's schema (`trainer/recipe/recipe_schema.cpp`).\n";
  const auto cell = [](const std::string& content) {
    std::string escaped;
    for (const char character : content) escaped += character == '|' ? std::string("\\|") : std::string(1, character);
    return escaped;
  };
  for (const auto& section : recipe_table()) {
    if (!section.inner) {   // a key of its own
      text += fmt::format("\n## {}\n\n{} ({}.)\n", section.key, section.doc, section.type);
      continue;
    }
    text += fmt::format("\n## {}{}\n\n{}\n\n| key | type | default | meaning |\n|---|---|---|---|\n", section.key,
                        section.required ? " (required)" : "", section.doc);
    for (const DocumentedKey& key : section.inner()) {
      const std::string fallback = key.fallback.empty() ? "" : key.fallback == "required" ? "**required**" : fmt::format("`{}`", key.fallback);
      std::string type = key.type;
      while (type.ends_with(' ')) type.pop_back();
      text += fmt::format("| `{}.{}` | {} | {} | {} |\n", section.key, key.key, cell(type), cell(fallback), cell(key.doc));
    }
  }
  return text;
}

}  // namespace graft
