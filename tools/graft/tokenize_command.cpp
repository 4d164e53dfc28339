// graft tokenize MODEL --file F.jsonl [--special] [--decode]
#include <iostream>

#include "data/tokenizers/stream_decoder.h"
#include "data/tokenizers/tokenizer.h"
#include "kernels/common/error.h"
#include "tools/graft/commands.h"
#include "tools/graft/json_lines.h"
#include "trainer/models/model_files.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string model, file;
  bool special = false, decode = false;
};

std::string encoded(const Tokenizer& tokenizer, const Json& line, const std::string& place, bool special) {
  if (!line.contains("text") || !line["text"].is_string()) fail("tokenize", "expected {{\"text\": \"...\"}}, got {} ({})", line.dump().substr(0, 100), place);
  return Json(tokenizer.encode(line["text"].get_ref<const std::string&>(), special)).dump();
}

// Bytes that are no UTF-8 are U+FFFD, as tokenizers' decoders write them.
std::string decoded(const Tokenizer& tokenizer, const Json& line, const std::string& place) {
  const auto wrong = [&] { fail("tokenize", "expected {{\"ids\": [...]}} with ids from 0 to {}, got {} ({})", tokenizer.vocab_size() - 1, line.dump().substr(0, 100), place); };
  if (!line.contains("ids") || !line["ids"].is_array()) wrong();
  std::vector<int32_t> ids;
  for (const auto& id : line["ids"]) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= tokenizer.vocab_size()) wrong();
    ids.push_back(id.get<int32_t>());
  }
  Utf8Stream stream;
  auto text = stream.push(tokenizer.decode(ids));
  text += stream.finish();
  return Json(text).dump();
}

int run(const Options& options) {
  const auto tokenizer = load_tokenizer(find_model(options.model).base);
  for_each_json_line(options.file, [&](const Json& line, const std::string& place) {
    std::cout << (options.decode ? decoded(*tokenizer, line, place) : encoded(*tokenizer, line, place, options.special)) << '\n';
  });
  if (!std::cout.flush()) throw MachineError("tokenize", "could not write to stdout");
  return 0;
}

}  // namespace

void add_tokenize_command(CommandLine& line) {
  auto* command = line.add("tokenize", "texts to token ids, or back: one JSON value a line in, one a line out");
  auto options = std::make_shared<Options>();
  command->add_option("MODEL", options->model, "model directory, .gguf file or run folder")->required();
  command->add_option("--file", options->file, "JSONL file of {\"text\"}, with --decode of {\"ids\"}; - reads standard input")->required();
  auto* special = command->add_flag("--special", options->special, "add BOS/EOS as the tokenizer does; special tokens in the text are always recognised");
  command->add_flag("--decode", options->decode, "ids to text")->excludes(special);
  command->callback([=, &line] { line.chosen = [=] { return run(*options); }; });
}

}  // namespace graft
