// graft train RECIPE [--set a.b=v]... [--resume] [--out DIR]
#include "tools/graft/commands.h"
#include "tools/graft/recipe_options.h"
#include "trainer/report/log_file.h"
#include "trainer/runs/train_run.h"

namespace graft {

void add_train_command(CommandLine& line) {
  auto* command = line.add("train", "run a recipe: train, export, certify, report");
  auto options = std::make_shared<RecipeOptions>();
  auto train_options = std::make_shared<TrainOptions>();
  options->add_to(*command);
  command->add_flag("--resume", train_options->resume, "go on with the run in --out from its newest complete checkpoint");
  command->add_flag("--not-bit-exact", train_options->not_bit_exact, "resume though program, threads or instruction set changed; recorded in the manifest");
  command->callback([=, &line] {
    line.chosen = [=, &line] {
      const auto result = train(options->load(), *train_options);
      if (line.json && !result.summary.is_null()) log().result(result.summary.dump());
      return result.exit_code;
    };
  });
}

}  // namespace graft
