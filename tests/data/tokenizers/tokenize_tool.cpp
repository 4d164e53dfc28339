// What the comparisons with the reference libraries run: {"text"} or {"hex"} (bytes) per line in, an id array per line out.
//   tokenize_tool MODEL [--special] < in.jsonl > out.jsonl
//   tokenize_tool MODEL --decode        {"ids"} in, the decoded text as a JSON string out; with --hex its bytes
//   tokenize_tool MODEL --info          special ids, stop ids, fingerprint
//   tokenize_tool MODEL --write DIR     tokenizer.json and tokenizer_config.json; gguf.json: the GGUF metadata
//   tokenize_tool MODEL --speed         encodes standard input as one text per line, five times; MB/s of the fastest
#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <set>

#include "checkpoints/gguf_file.h"
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

void write_files(const graft::Tokenizer& tokenizer, const std::filesystem::path& directory) {
  std::ofstream(directory / "tokenizer.json") << tokenizer.to_tokenizer_json().dump();
  std::ofstream(directory / "tokenizer_config.json") << tokenizer.to_tokenizer_config().dump();
  ordered_json entries = ordered_json::array();
  for (const graft::GgufEntry& entry : tokenizer.to_gguf_metadata()) {
    const ordered_json value = std::visit([](const auto& stored) { return ordered_json(stored); }, entry.value);
    entries.push_back({{"key", entry.key}, {"type", static_cast<int>(entry.type)}, {"element_type", static_cast<int>(entry.element_type)}, {"value", value}});
  }
  std::ofstream(directory / "gguf.json") << ordered_json{{"entries", entries}, {"differences", tokenizer.gguf_differences()}}.dump();
}

void measure(const graft::Tokenizer& tokenizer) {
  std::vector<std::string> texts;
  size_t bytes = 0, ids = 0;
  for (std::string line; std::getline(std::cin, line);) {
    texts.push_back(ordered_json::parse(line).at("text").get<std::string>());
    bytes += texts.back().size();
  }
  double best = 1e30;
  for (int round = 0; round < 5; ++round) {
    const auto start = std::chrono::steady_clock::now();
    ids = 0;
    for (const std::string& text : texts) ids += tokenizer.encode(text, false).size();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::cout << ordered_json{{"bytes", bytes}, {"ids", ids}, {"seconds", best}, {"mb_per_s", static_cast<double>(bytes) / best / 1e6}}.dump() << "\n";
}

int run(int argc, char** argv) {
  std::set<std::string> options(argv + 2, argv + argc);
  const auto tokenizer = graft::load_tokenizer(argv[1]);
  if (options.contains("--info")) return print_info(*tokenizer), 0;
  if (options.contains("--write")) return write_files(*tokenizer, argv[argc - 1]), 0;
  if (options.contains("--speed")) return measure(*tokenizer), 0;
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
  if (argc < 2) return std::cerr << "tokenize_tool MODEL [--special|--decode|--info|--write DIR|--speed]\n", 2;
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
}
