// graft launch --processes N RECIPE: train on several processes of this machine.
#include "tools/graft/commands.h"
#include "tools/graft/recipe_options.h"
#include "trainer/parallel/launcher.h"

namespace graft {

void add_launch_command(CommandLine& line) {
  auto* command = line.add("launch", "train a recipe on several processes of this machine; torchrun, srun and mpirun start graft train themselves (docs/scale.md)");
  auto options = std::make_shared<RecipeOptions>();
  auto processes = std::make_shared<int>(0);
  auto resume = std::make_shared<bool>(false), not_bit_exact = std::make_shared<bool>(false);
  command->add_option("--processes", *processes, "how many")->required()->check(CLI::Range(1, 1024));
  options->add_to(*command);
  command->add_flag("--resume", *resume, "go on with the run in --out from its newest complete checkpoint");
  command->add_flag("--not-bit-exact", *not_bit_exact, "as for graft train");
  command->callback([=, &line] {
    line.chosen = [=, &line] {
      options->load();   // a wrong recipe is one error, not one from each process
      std::vector<std::string> arguments = {options->recipe};
      for (const auto& setting : options->overrides) arguments.insert(arguments.end(), {"--set", setting});
      if (!options->out.empty()) arguments.insert(arguments.end(), {"--out", options->out});
      if (*resume) arguments.push_back("--resume");
      if (*not_bit_exact) arguments.push_back("--not-bit-exact");
      if (line.json) arguments.push_back("--json");
      if (line.quiet) arguments.push_back("--quiet");
      if (line.verbose) arguments.push_back("--verbose");
      return launch_processes(*processes, arguments);
    };
  });
}

}  // namespace graft
