// The families that graft knows. A family that is not here is an error: an architecture is never guessed from weights.
#include <fmt/ranges.h>

#include "kernels/common/error.h"
#include "trainer/models/families/family.h"
#include "trainer/models/families/llama.h"
#include "trainer/models/families/qwen2.h"
#include "trainer/models/families/qwen3.h"

namespace graft {

const std::vector<Family>& families() {
  static const std::vector<Family> table = {llama_family(), qwen2_family(), qwen3_family()};
  return table;
}

namespace {

const Family& find_family(const std::string& name, std::string Family::*column, const char* where) {
  std::vector<std::string> known;
  for (const auto& family : families()) {
    if (family.*column == name) return family;
    known.push_back(family.*column);
  }
  fail("models", "expected {} to be one of {}, got {} — this family is not supported; nothing is guessed", where, fmt::join(known, ", "), name);
}

}  // namespace

const Family& family_of_model_type(const std::string& model_type) {
  return find_family(model_type, &Family::model_type, "model_type in config.json");
}

const Family& family_of_gguf(const std::string& architecture) {
  return find_family(architecture, &Family::gguf_architecture, "general.architecture of the GGUF file");
}

}  // namespace graft
