// A model as something serves it: an exported file read back by graft, or by a real engine in a process of its own.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "data/templates/chat_template.h"
#include "data/tokenizers/tokenizer.h"
#include "trainer/models/decoder.h"

namespace graft {

inline constexpr int64_t kBlockRows = 256;   // of logits that are made at once

// logits_BV: float32, of positions first .. first + B - 1 of a row.
using LogitsBlock = std::function<void(size_t row, int64_t first, const at::Tensor& logits_BV)>;

struct GreedyAnswer {
  std::vector<int32_t> ids;   // without the stop token
  bool stopped = false;       // by a stop token
};

class ServedModel {
 public:
  virtual ~ServedModel() = default;
  virtual std::string reader() const = 0;   // "graft 0.1.0", "llama.cpp (xllamacpp 2026.10.11549, F16 cache)"
  // Every position of every row, in order, in blocks.
  virtual void logits(const std::vector<std::vector<int32_t>>& rows, const LogitsBlock& block) = 0;
  // Free greedy decoding up to one of stop_ids().
  virtual std::vector<GreedyAnswer> greedy(const std::vector<std::vector<int32_t>>& prompts, int64_t max_tokens) = 0;
  // The tokens that end an answer for whoever serves the artefact, and the one that it names as its end token.
  virtual std::vector<int32_t> stop_ids() = 0;
  virtual std::optional<int32_t> end_id() = 0;
  // The artefact's own tokenisation of a text, special tokens recognised, none added.
  virtual std::vector<int32_t> tokenize(const std::string& text) = 0;
};

struct ServedArtefact {
  std::filesystem::path path;   // GGUF file, merged directory or PEFT folder
  std::string format;           // "gguf:F16", "safetensors", "peft", "peft:per-expert", "gguf-lora", "base"
  std::filesystem::path base;   // beside which adapters are served
  bool is_adapter() const { return format.starts_with("peft") || format == "gguf-lora"; }
};

// The chat template that the artefact is served with: its own, an adapter without one has its base's. Null: none.
std::shared_ptr<const ChatTemplate> served_template(const ServedArtefact& artefact);

// Float32 compute on the artefact's stored weights.
std::unique_ptr<ServedModel> open_with_graft(const ServedArtefact& artefact);
// A model in memory as it is now (adapters, compute type); `decoder` outlives the result.
std::unique_ptr<ServedModel> serve_decoder(const Decoder& decoder, std::shared_ptr<const Tokenizer> tokenizer);

// engine: llama.cpp or transformers: runs tools/engines/<engine>_reader.py with `python` (empty: python3, or GRAFT_PYTHON), the only program that
// graft ever starts, and only when the user names the engine. UserError when the engine is not installed or cannot load the artefact.
std::unique_ptr<ServedModel> open_with_engine(const std::string& engine, const ServedArtefact& artefact, int64_t threads, const std::string& cache_type = "F16");

}  // namespace graft
