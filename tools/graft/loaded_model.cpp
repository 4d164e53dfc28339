#include "tools/graft/loaded_model.h"

#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iterator>

#include "kernels/common/error.h"
#include "trainer/adapters/adapter_files.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

std::shared_ptr<const ChatTemplate> template_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) fail("template", "expected data.template to be \"base\" or a readable .jinja file, got {}", path.string());
  return std::make_shared<ChatTemplate>(std::string(std::istreambuf_iterator<char>(in), {}), path.filename().string());
}

int64_t template_time(const std::string& date) {
  std::tm day{};
  if (date != "auto" && sscanf(date.c_str(), "%d-%d-%d", &day.tm_year, &day.tm_mon, &day.tm_mday) == 3) {
    day.tm_year -= 1900;
    day.tm_mon -= 1;
    return timegm(&day);
  }
  if (const char* epoch = std::getenv("SOURCE_DATE_EPOCH")) return std::atoll(epoch);
  return static_cast<int64_t>(std::time(nullptr));
}

}  // namespace

TemplateContext template_context(const ModelFiles& files, const Recipe* recipe) {
  std::optional<Recipe> own;
  if (files.run) {
    own = load_recipe(*files.run / "recipe.yaml", {});
    recipe = &*own;
  }
  TemplateContext context;
  context.tokenizer = load_tokenizer(files.base);
  const bool from_base = !recipe || recipe->data.template_source == "base";
  context.chat_template = from_base ? load_chat_template(files.base) : template_file(recipe->data.template_source);
  if (recipe) context.arguments = recipe->data.template_arguments;
  context.now = template_time(recipe ? recipe->data.template_date : "auto");
  return context;
}

LoadedModel load_model(const std::string& model, const std::string& adapter, const std::string& compute, const Recipe* recipe) {
  LoadedModel loaded;
  loaded.files = find_model(model);
  loaded.decoder = load_decoder(loaded.files.base, compute_type(compute));
  const auto folder = !adapter.empty() ? std::optional<fs::path>(adapter) : loaded.files.adapter;
  if (folder) loaded.adapters = load_adapter(*loaded.decoder, *folder);
  loaded.context = template_context(loaded.files, recipe);
  return loaded;
}

SourceOptions source_options_of(const DataSource& source) {
  SourceOptions options;
  options.path = source.path;
  options.format = source.format;
  options.text = source.text;
  options.label = source.label;
  options.prompt = source.prompt;
  options.completion = source.completion;
  options.system = source.system;
  options.weight = source.weight;
  return options;
}

}  // namespace graft
