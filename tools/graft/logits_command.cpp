// graft logits MODEL [--adapter DIR] --tokens F.json --out F.safetensors
#include <cstdio>
#include <fstream>

#include <nlohmann/json.hpp>

#include "kernels/common/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "tools/graft/commands.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/models/model_files.h"

namespace graft {
namespace {

struct Options {
  std::string model, adapter, tokens, out, compute = "float32";
};

int run(const Options& options) {
  std::ifstream in(options.tokens);
  const auto json = nlohmann::json::parse(in, nullptr, false);
  if (!json.is_array() || json.empty()) fail("logits", "expected a JSON array of token ids in {}, got something else", options.tokens);
  std::vector<int32_t> ids;
  for (const auto& id : json) {
    if (!id.is_number_integer()) fail("logits", "expected integers in {}, got {}", options.tokens, id.dump());
    ids.push_back(id.get<int32_t>());
  }
  const auto files = find_model(options.model);
  auto decoder = load_decoder(files.base, compute_type(options.compute), files.quantize_base);
  const auto folder = !options.adapter.empty() ? std::optional<std::filesystem::path>(options.adapter) : files.adapter;
  const auto adapters = folder ? load_adapter(*decoder, *folder) : nullptr;
  Batch batch;
  batch.add_document(ids);
  const auto logits = head_logits(decoder->forward(batch), decoder->head());
  // A safetensors file with one tensor: header length, header, data.
  auto header = nlohmann::ordered_json{{"logits",
                                        {{"dtype", "F32"},
                                         {"shape", {logits.size(0), logits.size(1)}},
                                         {"data_offsets", {0, logits.numel() * 4}}}}}
                    .dump();
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::ofstream out(options.out, std::ios::binary);
  const uint64_t length = header.size();
  out.write(reinterpret_cast<const char*>(&length), 8);
  out.write(header.data(), static_cast<std::streamsize>(header.size()));
  out.write(reinterpret_cast<const char*>(logits.const_data_ptr<float>()), logits.numel() * 4);
  if (!out.flush()) throw MachineError("logits", "could not write " + options.out);
  return 0;
}

}  // namespace

void add_logits_command(CommandLine& line) {
  auto* command = line.add("logits", "write the logits of one list of token ids, float32 [tokens, vocabulary]");
  auto options = std::make_shared<Options>();
  command->add_option("MODEL", options->model, "model directory, .gguf file or run folder")->required();
  command->add_option("--adapter", options->adapter, "PEFT folder");
  command->add_option("--tokens", options->tokens, "JSON file: an array of token ids")->required();
  command->add_option("--out", options->out, "safetensors file to write")->required();
  command->add_option("--compute", options->compute, "float32 or bfloat16")->check(CLI::IsMember({"float32", "bfloat16"}))->capture_default_str();
  command->callback([=, &line] { line.chosen = [=] { return run(*options); }; });
}

}  // namespace graft
