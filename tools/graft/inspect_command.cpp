// graft inspect PATH: tensors, types and metadata of any file that graft reads.
#include <fstream>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "checkpoints/gguf_file.h"
#include "checkpoints/tensor_source.h"
#include "tools/graft/commands.h"
#include "trainer/report/log_file.h"

namespace graft {
namespace {

using nlohmann::ordered_json;

constexpr size_t kShownText = 100;

ordered_json value_json(const GgufValue& value) {
  return std::visit(
      [](const auto& v) -> ordered_json {
        using Value = std::decay_t<decltype(v)>;
        if constexpr (requires { typename Value::value_type; } && !std::is_same_v<Value, std::string>) {
          return fmt::format("[{} values]", v.size());
        } else if constexpr (std::is_same_v<Value, std::string>) {
          return v.size() > kShownText ? v.substr(0, kShownText) + fmt::format("... ({} bytes)", v.size()) : v;
        } else {
          return v;
        }
      },
      value);
}

int run(const CommandLine& line, const std::filesystem::path& path) {
  ordered_json json = {{"metadata", ordered_json::object()}, {"tensors", ordered_json::array()}};
  std::unique_ptr<TensorSource> source;
  if (path.extension() == ".gguf") {
    auto file = std::make_unique<GgufFile>(path);
    for (const auto& entry : file->metadata()) json["metadata"][entry.key] = value_json(entry.value);
    source = std::move(file);
  } else {
    source = open_tensors(path);
  }
  int64_t bytes = 0, elements = 0;
  for (const auto& tensor : source->tensors()) {
    json["tensors"].push_back({{"name", tensor.name}, {"type", std::string(info(tensor.type).name)}, {"shape", tensor.shape}, {"bytes", tensor.bytes.size()}});
    bytes += static_cast<int64_t>(tensor.bytes.size());
    elements += tensor.num_elements();
  }
  if (line.json) {
    log().result(json.dump(-1, ' ', false, ordered_json::error_handler_t::replace));
    return 0;
  }
  std::string text;
  for (const auto& [key, value] : json["metadata"].items()) {
    text += fmt::format("{:<44} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump(-1, ' ', false, ordered_json::error_handler_t::replace));
  }
  for (const auto& tensor : source->tensors()) {
    text += fmt::format("{:<52} {:<6} [{}]\n", tensor.name, info(tensor.type).name, fmt::join(tensor.shape, ", "));
  }
  text += fmt::format("{} tensors, {} elements, {:.2f} MiB in {} file(s)", source->tensors().size(), elements, static_cast<double>(bytes) / 1048576.0,
                      source->files().size());
  log().result(text);
  return 0;
}

}  // namespace

void add_inspect_command(CommandLine& line) {
  auto* command = line.add("inspect", "tensors, types and metadata of a GGUF or safetensors file, or of a model directory");
  auto path = std::make_shared<std::string>();
  command->add_option("PATH", *path, "file or directory")->required();
  command->callback([=, &line] { line.chosen = [=, &line] { return run(line, *path); }; });
}

}  // namespace graft
