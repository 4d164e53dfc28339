#include "trainer/runs/recipe_inputs.h"

#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iterator>

#include "kernels/common/error.h"

namespace graft {
namespace {

std::shared_ptr<const ChatTemplate> template_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) fail("recipe", "expected data.template to be \"base\" or a readable .jinja file, got {}", path.string());
  return std::make_shared<ChatTemplate>(std::string(std::istreambuf_iterator<char>(in), {}), path.filename().string());
}

int64_t template_time(const std::string& date) {
  if (date == "auto") {
    if (const char* epoch = std::getenv("SOURCE_DATE_EPOCH")) return std::atoll(epoch);
    const auto now = static_cast<int64_t>(std::time(nullptr));
    return now - now % 86400;
  }
  std::tm day{};
  if (sscanf(date.c_str(), "%d-%d-%d", &day.tm_year, &day.tm_mon, &day.tm_mday) != 3) {
    fail("recipe", "expected data.template_date as YYYY-MM-DD or auto, got {}", date);
  }
  day.tm_year -= 1900;
  day.tm_mon -= 1;
  return timegm(&day);
}

}  // namespace

SourceOptions source_options(const DataSource& source) {
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

std::vector<SourceOptions> source_options(const std::vector<DataSource>& sources) {
  std::vector<SourceOptions> options;
  for (const auto& source : sources) options.push_back(source_options(source));
  return options;
}

TemplateContext template_context(const std::filesystem::path& base, const DataOptions& data) {
  TemplateContext context;
  context.tokenizer = load_tokenizer(base);
  context.chat_template = data.template_source == "base" ? load_chat_template(base) : template_file(data.template_source);
  context.arguments = data.template_arguments;
  context.now = template_time(data.template_date);
  return context;
}

}  // namespace graft
