// graft render MODEL --file F.jsonl: what the model's chat template makes of each line.
#include <iostream>

#include "data/templates/render_line.h"
#include "kernels/common/error.h"
#include "tools/graft/commands.h"
#include "tools/graft/json_lines.h"
#include "trainer/runs/loaded_model.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

void print(const Json& line) { std::cout << line.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n'; }

int run(const std::string& model, const std::string& file) {
  const auto context = template_context(find_model(model));
  if (!context.chat_template) fail("render", "expected a model with a chat template, got {} without one — it continues text only", model);
  const auto bad = [](const std::string& problem, const std::string& place) {
    print({{"error", {{"kind", "input"}, {"type", "JSONDecodeError"}, {"message", problem}}}, {"where", place}});
  };
  for_each_json_line(file, [&](const Json& line, const std::string&) { print(render_line(context, line)); }, bad);
  if (!std::cout.flush()) throw MachineError("render", "could not write to stdout");
  return 0;
}

}  // namespace

void add_render_command(CommandLine& line) {
  auto* command = line.add("render", "conversations to text, ids and mask: one JSON object a line in, one a line out");
  auto model = std::make_shared<std::string>(), file = std::make_shared<std::string>();
  command->add_option("MODEL", *model, "model directory, .gguf file or run folder")->required();
  command->add_option("--file", *file, "JSONL file of {\"messages\", \"tools\"?, \"add_generation_prompt\"?, ...}; - reads standard input")->required();
  command->footer("A date in the template is SOURCE_DATE_EPOCH's, else today's (UTC); a run folder's is its recipe's.");
  command->callback([=, &line] { line.chosen = [=] { return run(*model, *file); }; });
}

}  // namespace graft
