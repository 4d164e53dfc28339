// graft cache list|remove: token stores on disk.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "data/stores/store_files.h"
#include "tools/graft/commands.h"
#include "trainer/report/log_file.h"

namespace graft {

void add_cache_command(CommandLine& line) {
  auto* command = line.add("cache", "list or remove token stores");
  auto folder = std::make_shared<std::string>("runs/cache"), name = std::make_shared<std::string>();
  command->require_subcommand(1);
  auto* list = command->add_subcommand("list", "the stores in a cache folder");
  list->add_option("--cache", *folder, "the folder (run.cache; by default `cache` beside the run)")->capture_default_str();
  list->callback([=, &line] {
    line.chosen = [=, &line] {
      auto json = nlohmann::ordered_json::array();
      const auto stores = list_stores(*folder);
      if (stores.empty()) log().info(fmt::format("no token stores in {}", *folder));
      for (const auto& store : stores) {
        json.push_back({{"name", store.name}, {"rows", store.num_rows}, {"bytes", store.bytes}});
        if (!line.json) log().result(fmt::format("{}  {:>9} rows  {:>9.2f} MiB", store.name, store.num_rows, static_cast<double>(store.bytes) / 1048576.0));
      }
      if (line.json) log().result(json.dump());
      return 0;
    };
  });
  auto* remove = command->add_subcommand("remove", "delete a store, or all of them");
  remove->add_option("NAME", *name, "a name that `list` shows, or `all`")->required();
  remove->add_option("--cache", *folder, "the folder")->capture_default_str();
  remove->callback([=, &line] {
    line.chosen = [=, &line] {
      int64_t bytes = 0;
      if (*name == "all") {
        for (const auto& store : list_stores(*folder)) bytes += remove_store(*folder, store.name);
      } else {
        bytes = remove_store(*folder, *name);
      }
      log().result(line.json ? nlohmann::json{{"bytes", bytes}}.dump() : fmt::format("removed {:.2f} MiB", static_cast<double>(bytes) / 1048576.0));
      return 0;
    };
  });
}

}  // namespace graft
