// Artefacts read back by graft itself, computed in float32.
#include <ATen/Parallel.h>

#include "data/rows/packing.h"
#include "kernels/common/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/adapters/gguf_adapter.h"
#include "trainer/generation/generator.h"
#include "trainer/models/model_files.h"
#include "trainer/verify/served_model.h"

namespace graft {
namespace {

constexpr int64_t kPackTokens = 1024;

class GraftModel : public ServedModel {
 public:
  GraftModel(const Decoder& decoder, std::shared_ptr<const Tokenizer> tokenizer) : decoder_(&decoder), tokenizer_(std::move(tokenizer)) {}
  GraftModel(std::unique_ptr<Decoder> decoder, std::unique_ptr<AdapterSet> adapters, std::shared_ptr<const Tokenizer> tokenizer)
      : owned_decoder_(std::move(decoder)), owned_adapters_(std::move(adapters)), decoder_(owned_decoder_.get()), tokenizer_(std::move(tokenizer)) {}

  std::string reader() const override { return std::string("graft ") + GRAFT_VERSION + ", float32"; }

  void logits(const std::vector<std::vector<int32_t>>& rows, const LogitsBlock& block) override {
    std::vector<int64_t> order, lengths;
    for (size_t row = 0; row < rows.size(); ++row) {
      order.push_back(static_cast<int64_t>(row));
      lengths.push_back(static_cast<int64_t>(rows[row].size()));
    }
    for (const auto& pack : pack_rows(order, lengths, kPackTokens)) {
      Batch batch;
      for (const auto row : pack) batch.add_document(rows[row]);
      const auto hidden_NC = decoder_->forward(batch);
      for (size_t d = 0; d < pack.size(); ++d) {
        for (int64_t first = 0; first < lengths[pack[d]]; first += kBlockRows) {
          const auto count = std::min(kBlockRows, lengths[pack[d]] - first);
          block(static_cast<size_t>(pack[d]), first, head_logits(hidden_NC.narrow(0, batch.document_offsets[d] + first, count), decoder_->head()));
        }
      }
    }
  }

  std::vector<GreedyAnswer> greedy(const std::vector<std::vector<int32_t>>& prompts, int64_t max_tokens) override {
    GenerationOptions options;   // temperature 0: greedy; the generator knows the tokenizer's stop ids
    options.max_new_tokens = max_tokens;
    std::vector<GreedyAnswer> answers;
    for (auto& generation : Generator(*decoder_, tokenizer_).generate(prompts, options)) {
      answers.push_back({std::move(generation.ids), generation.stop == StopReason::kStopToken});
    }
    return answers;
  }

  std::vector<int32_t> stop_ids() override { return end_tokens(*tokenizer_); }
  std::optional<int32_t> end_id() override { return tokenizer_->eos_id; }

  std::vector<int32_t> tokenize(const std::string& text) override { return tokenizer_->encode(text, false); }

 private:
  std::unique_ptr<Decoder> owned_decoder_;
  std::unique_ptr<AdapterSet> owned_adapters_;   // before the decoder goes, it takes itself out of its slots
  const Decoder* decoder_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace

std::unique_ptr<ServedModel> serve_decoder(const Decoder& decoder, std::shared_ptr<const Tokenizer> tokenizer) {
  return std::make_unique<GraftModel>(decoder, std::move(tokenizer));
}

std::shared_ptr<const ChatTemplate> served_template(const ServedArtefact& artefact) {
  const bool has_own = !artefact.is_adapter() || std::filesystem::exists(artefact.path / "chat_template.jinja");
  return load_chat_template(has_own ? artefact.path : artefact.base);
}

std::unique_ptr<ServedModel> open_with_graft(const ServedArtefact& artefact) {
  const auto& model = artefact.is_adapter() ? artefact.base : artefact.path;
  auto decoder = load_decoder(model, ComputeType::kFloat32);
  std::unique_ptr<AdapterSet> adapters;
  if (artefact.format.starts_with("peft")) adapters = load_adapter(*decoder, artefact.path);
  if (artefact.format == "gguf-lora") adapters = load_gguf_adapter(*decoder, artefact.path);
  return std::make_unique<GraftModel>(std::move(decoder), std::move(adapters), load_tokenizer(model));
}

}  // namespace graft
