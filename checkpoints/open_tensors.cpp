#include <algorithm>
#include <array>
#include <cstring>

#include <fmt/ranges.h>

#include "checkpoints/gguf_file.h"
#include "checkpoints/mapped_file.h"
#include "checkpoints/safetensors_file.h"
#include "checkpoints/tensor_source.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

// Formats of Python's pickle: reading one executes code that it contains, so graft reads none.
bool is_pickle(const std::filesystem::path& path) {
  constexpr std::array kEndings = {".bin", ".pt", ".pth", ".ckpt", ".pkl"};
  return std::ranges::find(kEndings, path.extension().string()) != kEndings.end();
}

[[noreturn]] void fail_pickle_file(const std::filesystem::path& path) {
  const std::string target = std::filesystem::path(path).replace_extension(".safetensors").string();
  fail("checkpoints",
       "expected safetensors or GGUF, got a Python pickle, which can execute code when it is read ({}) — if you trust it, "
       "convert it once: python -c "
       "\"import torch, safetensors.torch as s; w = torch.load('{}', map_location='cpu', weights_only=True); s.save_file({{k: "
       "v.clone().contiguous() for k, v "
       "in w.items()}}, '{}', metadata={{'format': 'pt'}})\"",
       path.string(), path.string(), target);
}

[[noreturn]] void fail_directory(const std::filesystem::path& directory) {
  std::vector<std::string> pickles, others;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (is_pickle(entry.path())) pickles.push_back(name);
    if (entry.path().extension() == ".gguf" || entry.path().extension() == ".safetensors") others.push_back(name);
  }
  std::ranges::sort(pickles);
  std::ranges::sort(others);
  if (!others.empty())
    fail("checkpoints",
         "expected model.safetensors or model.safetensors.index.json, got {} ({}) — give the path of one of these files",
         fmt::join(others, ", "), directory.string());
  if (!pickles.empty())
    fail("checkpoints",
         "expected model.safetensors or model.safetensors.index.json, got Python pickles, which can execute code when they are "
         "read: {} ({}) — if you trust them, "
         "convert them once: python -c \"from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
         "M.from_pretrained('{}', "
         "dtype='auto').save_pretrained('{}-safetensors', safe_serialization=True); "
         "T.from_pretrained('{}').save_pretrained('{}-safetensors')\"",
         fmt::join(pickles, ", "), directory.string(), directory.string(), directory.string(), directory.string(),
         directory.string());
  fail("checkpoints",
       "expected model.safetensors or model.safetensors.index.json, got neither ({}) — give a model in Hugging Face layout or "
       "a .gguf file",
       directory.string());
}

bool starts_with_gguf(const std::filesystem::path& path) {
  const MappedFile file(path);
  return file.bytes().size() >= 4 && std::memcmp(file.bytes().data(), "GGUF", 4) == 0;
}

}  // namespace

std::unique_ptr<TensorSource> open_tensors(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path))
    fail("checkpoints",
         "expected a model directory, a .gguf or a .safetensors file, got a path that does not exist ({}) — check it",
         path.string());
  if (std::filesystem::is_directory(path)) {
    if (std::filesystem::exists(path / "model.safetensors") || std::filesystem::exists(path / "model.safetensors.index.json"))
      return std::make_unique<SafetensorsFile>(path);
    fail_directory(path);
  }
  if (path.extension() == ".safetensors") return std::make_unique<SafetensorsFile>(path);
  if (path.extension() == ".gguf" || starts_with_gguf(path)) return std::make_unique<GgufFile>(path);
  if (is_pickle(path)) fail_pickle_file(path);
  fail("checkpoints", "expected a model directory, a .gguf or a .safetensors file, got {} — give the path of the model itself",
       path.string());
}

std::vector<std::filesystem::path> python_files(const std::filesystem::path& model_directory) {
  std::vector<std::filesystem::path> found;
  if (!std::filesystem::is_directory(model_directory)) return found;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(
           model_directory, std::filesystem::directory_options::skip_permission_denied))
    if (entry.path().extension() == ".py" && entry.is_regular_file()) found.push_back(entry.path());
  std::ranges::sort(found);
  return found;
}

}  // namespace graft
