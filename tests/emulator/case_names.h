// Tests that take their cases by name.
#pragma once
#include <map>
#include <string>
#include <vector>

namespace graft::emulator {

// Of those cases that are wanted.
template <typename Case, typename Function>
std::vector<std::string> names_of(const std::map<std::string, Case>& cases, const Function& wanted) {
  std::vector<std::string> names;
  for (const auto& [name, example] : cases) {
    if (wanted(example)) names.push_back(name);
  }
  return names;
}
template <typename Case>
std::vector<std::string> names_of(const std::map<std::string, Case>& cases) {
  return names_of(cases, [](const Case&) { return true; });
}

}  // namespace graft::emulator
