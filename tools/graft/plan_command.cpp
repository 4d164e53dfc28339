// graft plan RECIPE: everything that would happen, before anything does; exit code 1 on a bad run.
#include "data/rows/rewritten_turns.h"
#include "tools/graft/commands.h"
#include "tools/graft/recipe_options.h"
#include "trainer/report/log_file.h"
#include "trainer/runs/plan.h"

namespace graft {

void add_plan_command(CommandLine& line) {
  auto* command = line.add("plan", "show everything a recipe would do, before it does; exit code 1 on a bad run");
  auto options = std::make_shared<RecipeOptions>();
  auto no_probe = std::make_shared<bool>(false), resolved = std::make_shared<bool>(false);
  auto processes = std::make_shared<int>(1);
  options->add_to(*command);
  command->add_flag("--no-probe", *no_probe, "do not measure a micro-batch: no estimate of the time");
  command->add_option("--processes", *processes, "also show what each of so many processes would compute, hold and send")->check(CLI::Range(1, 1024));
  command->add_flag("--resolved", *resolved, "also print the recipe with every default");
  command->callback([=, &line] {
    line.chosen = [=, &line] {
      const auto recipe = options->load();
      PrepareOptions prepare;
      prepare.log = [](const std::string& text) { log().detail(text); };
      auto run = prepare_run(recipe, prepare);
      for (const auto* split : {&run.dataset.train, &run.dataset.validation}) {
        if (auto finding = rewritten_turns(run.context, *split)) run.dataset.findings.push_back(std::move(*finding));
      }
      const auto plan = make_plan(run, !*no_probe, *processes);
      if (line.json) {
        log().result(plan.json.dump());
      } else {
        log().result(plan_text(plan, run, log().has_colour()));
        if (*resolved) log().result(resolved_yaml(run.recipe));
      }
      return plan.errors.empty() ? 0 : 1;
    };
  });
}

}  // namespace graft
