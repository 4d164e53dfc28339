#include "trainer/recipe/recipe_differences.h"

#include <fmt/format.h>

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

struct Difference {
  std::string key;
  Json old, now;   // discarded values: the key is missing
};

std::string shown(const Json& value) { return value.is_discarded() ? "(none)" : value.dump(-1, ' ', false, Json::error_handler_t::replace); }

void compare(const std::string& key, const Json& old, const Json& now, std::vector<Difference>& differences) {
  const Json missing(Json::value_t::discarded);
  const auto inner = [&](const std::string& name) { return key.empty() ? name : key + "." + name; };
  if (old.is_object() && now.is_object()) {
    for (const auto& [name, value] : now.items()) compare(inner(name), old.contains(name) ? old[name] : missing, value, differences);
    for (const auto& [name, value] : old.items()) {
      if (!now.contains(name)) compare(inner(name), value, missing, differences);
    }
  } else if (old.is_array() && now.is_array()) {
    for (size_t i = 0; i < std::max(old.size(), now.size()); ++i) {
      compare(inner(std::to_string(i)), i < old.size() ? old[i] : missing, i < now.size() ? now[i] : missing, differences);
    }
  } else if (old.is_discarded() || now.is_discarded() || old != now) {
    differences.push_back({key, old, now});
  }
}

std::vector<Difference> differences_of(const Json& old, const Json& now) {
  std::vector<Difference> differences;
  compare("", old, now, differences);
  return differences;
}

std::string line(const Difference& difference) {
  return fmt::format("{}: {} -> {}", difference.key, shown(difference.old), shown(difference.now));
}

// Steps win over epochs, so epochs only matter while steps is null.
bool is_longer_constant_schedule(const Difference& difference, const Json& old, const Json& now) {
  const Json &before = old["schedule"], &after = now["schedule"];
  if (before["shape"] != "constant" || after["shape"] != "constant") return false;
  const double warmup = after["warmup"];
  if (warmup > 0 && warmup < 1) return false;
  if (difference.key == "schedule.epochs") return !after["steps"].is_null() || difference.now > difference.old;
  return difference.key == "schedule.steps" && difference.old.is_number() && difference.now.is_number() && difference.now > difference.old;
}

}  // namespace

std::vector<std::string> recipe_differences(const Json& old, const Json& now) {
  std::vector<std::string> lines;
  for (const Difference& difference : differences_of(old, now)) lines.push_back(line(difference));
  return lines;
}

std::vector<std::string> resume_conflicts(const Json& old, const Json& now) {
  std::vector<std::string> lines;
  for (const Difference& difference : differences_of(old, now)) {
    bool allowed = difference.key == "run.out" || difference.key == "run.cache" || difference.key == "run.shard_base";
    for (const char* prefix : {"run.keep", "export", "report", "accept_licence"}) {
      allowed = allowed || difference.key == prefix || difference.key.starts_with(std::string(prefix) + ".");
    }
    if (!allowed && !is_longer_constant_schedule(difference, old, now)) lines.push_back(line(difference));
  }
  return lines;
}

}  // namespace graft
