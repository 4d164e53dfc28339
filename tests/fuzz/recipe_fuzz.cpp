// libFuzzer: any bytes as a recipe. A recipe is read or refused with a UserError; one that is read prints and reads back to the same.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "kernels/common/error.h"
#include "trainer/recipe/recipe.h"
#include "tests/fuzz/processor_time.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const graft::ProcessorTime limit;
  const std::string text(reinterpret_cast<const char*>(data), size);
  // The first line is a --set, the rest the file; an input of one line is a file alone.
  const size_t line = text.find('\n');
  std::vector<std::string> overrides;
  if (line != std::string::npos && text.starts_with("--set ")) overrides.push_back(text.substr(6, line - 6));
  try {
    const graft::Recipe recipe = graft::parse_recipe(overrides.empty() ? text : text.substr(line + 1), "fuzz.yaml", "", overrides);
    const std::string printed = graft::resolved_yaml(recipe);
    if (graft::resolved_yaml(graft::parse_recipe(printed, "printed.yaml", "")) != printed) std::abort();
  } catch (const graft::UserError&) {
  }
  return 0;
}
