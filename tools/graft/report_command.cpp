// graft report RUN: writes report.html again.
#include "tools/graft/commands.h"
#include "trainer/report/html_report.h"
#include "trainer/report/log_file.h"

#include <nlohmann/json.hpp>

namespace graft {

void add_report_command(CommandLine& line) {
  auto* command = line.add("report", "write report.html of a run folder");
  auto run = std::make_shared<std::string>();
  command->add_option("RUN", *run, "run folder")->required();
  command->callback([=, &line] {
    line.chosen = [=, &line] {
      write_report(*run);
      const auto path = (std::filesystem::path(*run) / "report.html").string();
      log().result(line.json ? nlohmann::json{{"report", path}}.dump() : path);
      return 0;
    };
  });
}

}  // namespace graft
