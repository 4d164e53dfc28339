// graft teach RECIPE [--set a.b=v]... [--out DIR]
#include "tools/graft/commands.h"
#include "tools/graft/recipe_options.h"
#include "trainer/report/log_file.h"
#include "trainer/runs/teach_run.h"

namespace graft {

void add_teach_command(CommandLine& line) {
  auto* command = line.add("teach", "write what a distillation recipe's teacher says of its rows (teacher.signal: cached); run again, it goes on");
  auto options = std::make_shared<RecipeOptions>();
  options->add_to(*command);
  command->callback([=, &line] {
    line.chosen = [=, &line] {
      const auto result = teach(options->load());
      if (line.json) log().result(result.summary.dump());
      return result.exit_code;
    };
  });
}

}  // namespace graft
