// What the comparisons with the reference libraries run: {"text"} or {"hex"} (bytes) per line in, an id array per line out.
//   tokenize_tool MODEL [--special] < in.jsonl > out.jsonl
//   tokenize_tool MODEL --decode        {"ids"} in, the decoded text as a JSON string out; with --hex its bytes
//   tokenize_tool MODEL --info          special ids, stop ids, fingerprint
//   tokenize_tool MODEL --write DIR     tokenizer.json and tokenizer_config.json; gguf.json: the GGUF metadata, and vocabulary.gguf with it
//   tokenize_tool MODEL --gguf DIR      the last two alone
//   tokenize_tool MODEL --speed N       encodes standard input as one text per line, N times; the user CPU seconds of each
#include <sys/resource.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <set>

#include "checkpoints/gguf_writer.h"
#include "data/tokenizers/tokenizer.h"
#include "data/tokenizers/utf8.h"

namespace {

using nlohmann::ordered_json;

std::string from_hex(const std::string& digits) {
  std::string bytes;
  for (size_t i = 0; i + 1 < digits.size(); i += 2) bytes += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  return bytes;
}

std::string to_hex(std::string_view bytes) {
  std::string digits;
  for (const char byte : bytes) {
    digits += "0123456789abcdef"[static_cast<unsigned char>(byte) >> 4];
    digits += "0123456789abcdef"[static_cast<unsigned char>(byte) & 15];
  }
  return digits;
}

void print_info(const graft::Tokenizer& tokenizer) {
  const auto id = [](std::optional<int32_t> value) { return value ? ordered_json(*value) : ordered_json(); };
  std::cout << ordered_json{{"bos", id(tokenizer.bos_id)}, {"eos", id(tokenizer.eos_id)}, {"pad", id(tokenizer.pad_id)}, {"unk", id(tokenizer.unk_id)},
                            {"stop", tokenizer.stop_ids}, {"special_tokens", tokenizer.special_tokens}, {"vocab_size", tokenizer.vocab_size()},
                            {"fingerprint", tokenizer.fingerprint}}
                   .dump()
            << "\n";
}

void write_gguf(const graft::Tokenizer& tokenizer, const std::filesystem::path& directory) {
  std::vector<graft::GgufEntry> metadata = {graft::gguf_string("general.architecture", "llama")};
  ordered_json entries = ordered_json::array();
  for (const graft::GgufEntry& entry : tokenizer.to_gguf_metadata()) {
    const ordered_json value = std::visit([](const auto& stored) { return ordered_json(stored); }, entry.value);
    entries.push_back({{"key", entry.key}, {"type", static_cast<int>(entry.type)}, {"element_type", static_cast<int>(entry.element_type)}, {"value", value}});
    metadata.push_back(entry);
  }
  graft::GgufWriter(directory / "vocabulary.gguf", metadata, {}).finish();
  std::ofstream(directory / "gguf.json") << ordered_json{{"entries", entries}, {"differences", tokenizer.gguf_differences()}}.dump();
}

void write_files(const graft::Tokenizer& tokenizer, const std::filesystem::path& directory) {
  std::ofstream(directory / "tokenizer.json") << tokenizer.to_tokenizer_json().dump();
  std::ofstream(directory / "tokenizer_config.json") << tokenizer.to_tokenizer_config().dump();
  write_gguf(tokenizer, directory);
}

void measure(const graft::Tokenizer& tokenizer, int rounds) {
  std::vector<std::string> texts;
  size_t bytes = 0, ids = 0;
  for (std::string line; std::getline(std::cin, line);) {
    texts.push_back(ordered_json::parse(line).at("text").get<std::string>());
    bytes += texts.back().size();
  }
  const auto user_seconds = [] {
    rusage used;
    getrusage(RUSAGE_SELF, &used);
    return static_cast<double>(used.ru_utime.tv_sec) + static_cast<double>(used.ru_utime.tv_usec) * 1e-6;
  };
  std::vector<double> seconds;
  for (int round = 0; round < rounds; ++round) {
    const double start = user_seconds();
    ids = 0;
    for (const std::string& text : texts) ids += tokenizer.encode(text, false).size();
    seconds.push_back(user_seconds() - start);
  }
  std::cout << ordered_json{{"bytes", bytes}, {"ids", ids}, {"seconds", seconds}}.dump() << "\n";
}

int run(int argc, char** argv) {
  std::set<std::string> options(argv + 2, argv + argc);
  const auto tokenizer = graft::load_tokenizer(argv[1]);
  if (options.contains("--info")) return print_info(*tokenizer), 0;
  if (options.contains("--write")) return write_files(*tokenizer, argv[argc - 1]), 0;
  if (options.contains("--gguf")) return write_gguf(*tokenizer, argv[argc - 1]), 0;
  if (options.contains("--speed")) return measure(*tokenizer, std::stoi(argv[argc - 1])), 0;
  for (std::string line; std::getline(std::cin, line);) {
    const ordered_json row = ordered_json::parse(line);
    if (options.contains("--decode")) {
      const std::string bytes = tokenizer->decode(row.at("ids").get<std::vector<int32_t>>(), options.contains("--skip-special"));
      std::cout << ordered_json(options.contains("--hex") ? to_hex(bytes) : graft::to_valid_utf8(bytes)).dump() << "\n";
    } else {
      const std::string text = row.contains("hex") ? from_hex(row["hex"].get<std::string>()) : row.at("text").get<std::string>();
      std::cout << ordered_json(tokenizer->encode(text, options.contains("--special"))).dump() << "\n";
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  if (argc < 2) return std::cerr << "tokenize_tool MODEL [--special|--decode|--info|--write DIR|--gguf DIR|--speed N]\n", 2;
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
}
