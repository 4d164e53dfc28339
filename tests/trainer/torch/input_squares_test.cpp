// Importance matrices of a model's own activations: against a plain double computation, and what exports make of them.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoints/codecs/quantize.h"
#include "checkpoints/gguf_file.h"
#include "kernels/common/error.h"
#include "tests/support/error_of.h"
#include "tests/trainer/torch/generation_tiny_model.h"
#include "trainer/adapters/adapter_set.h"
#include "trainer/exports/export.h"
#include "trainer/exports/input_squares.h"

namespace graft {
namespace {

using testing::Contains;
using testing::HasSubstr;

const std::vector<std::vector<int32_t>> kDocuments = {{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5}, {8, 9, 7, 9, 3, 2, 3}};

Batch batch_of_documents() {
  Batch batch;
  for (const auto& document : kDocuments) batch.add_document(document);
  return batch;
}

std::unique_ptr<AdapterSet> random_adapters(Decoder& decoder, const std::vector<std::string>& targets) {
  AdapterOptions options;
  options.rank = 3;
  options.alpha = 5;
  options.targets = targets;
  auto adapters = std::make_unique<AdapterSet>(decoder, options, 1);
  auto* values = adapters->parameters.data_ptr<float>();
  for (int64_t i = 0; i < adapters->num_parameters(); ++i) values[i] = static_cast<float>(counter_uniform(3, 0, i) - 0.5);
  return adapters;
}

// A Llama in double, layer by layer, one document at a time: what each matrix multiplies with.
class PlainLlama {
 public:
  explicit PlainLlama(Decoder& decoder) : decoder_(decoder) {
    for (auto* linear : decoder.linears()) {
      auto weight = linear->weight.matrix(at::kFloat, at::kCPU).to(at::kDouble);
      if (linear->adapter) weight = weight + linear->adapter->scale * at::matmul(linear->adapter->lora_b_OR.detach().to(at::kDouble), linear->adapter->lora_a_RC.detach().to(at::kDouble));
      matrices_[linear->rules.at(0)->gguf] = weight;
    }
  }

  void run(const std::vector<int32_t>& tokens) {
    const auto embedding = decoder_.embedding().matrix(at::kFloat, at::kCPU).to(at::kDouble);
    auto x_NC = embedding.index_select(0, at::tensor(std::vector<int64_t>(tokens.begin(), tokens.end())));
    for (int layer = 0; layer < 2; ++layer) {
      const std::string blk = "blk." + std::to_string(layer) + ".";
      const auto a_NC = normed(x_NC, blk + "attn_norm.weight");
      const auto q_HND = heads(product(a_NC, blk + "attn_q.weight"), 4), k_HND = heads(product(a_NC, blk + "attn_k.weight"), 2);
      const auto v_HND = product(a_NC, blk + "attn_v.weight").view({-1, 2, 8}).transpose(0, 1);
      const auto scores_HNM = at::matmul(q_HND, at::repeat_interleave(k_HND, 2, 0).transpose(1, 2)) / std::sqrt(8.0);
      const auto later_NM = at::ones({x_NC.size(0), x_NC.size(0)}, at::kBool).triu(1);
      const auto weights_HNM = at::softmax(scores_HNM.masked_fill(later_NM, -INFINITY), -1);
      const auto mixed_NC = at::matmul(weights_HNM, at::repeat_interleave(v_HND, 2, 0)).transpose(0, 1).reshape({-1, 32});
      x_NC = x_NC + product(mixed_NC, blk + "attn_output.weight");
      const auto c_NC = normed(x_NC, blk + "ffn_norm.weight");
      const auto gate = product(c_NC, blk + "ffn_gate.weight"), up = product(c_NC, blk + "ffn_up.weight");
      x_NC = x_NC + product(gate * at::sigmoid(gate) * up, blk + "ffn_down.weight");
    }
  }

  std::map<std::string, at::Tensor> squares_C;

 private:
  at::Tensor product(const at::Tensor& p_NC, const std::string& name) {
    const auto own = (p_NC * p_NC).sum(0);
    squares_C[name] = squares_C.contains(name) ? squares_C[name] + own : own;
    return at::matmul(p_NC, matrices_.at(name).t());
  }
  at::Tensor normed(const at::Tensor& x_NC, const std::string& name) {
    for (const auto& weight : decoder_.weights()) {
      if (weight.rule->gguf != name) continue;
      const auto scale_C = at::from_blob(const_cast<std::byte*>(weight.tensor->bytes.data()), {32}, at::kFloat).to(at::kDouble);
      return x_NC * at::rsqrt((x_NC * x_NC).mean(-1, true) + 1e-3) * scale_C;
    }
    throw std::runtime_error(name);
  }
  static at::Tensor heads(const at::Tensor& x_NC, int64_t num_heads) {   // turned by position
    const auto x_HND = x_NC.view({-1, num_heads, 8}).transpose(0, 1);
    const auto frequencies_D = at::pow(at::tensor(10000.0, at::kDouble), at::arange(0, 8, 2, at::kDouble) / -8.0);
    const auto angles_ND = at::outer(at::arange(x_NC.size(0), at::kDouble), frequencies_D).repeat({1, 2});
    const auto turned_HND = at::cat({-x_HND.narrow(2, 4, 4), x_HND.narrow(2, 0, 4)}, 2);
    return x_HND * at::cos(angles_ND) + turned_HND * at::sin(angles_ND);
  }

  Decoder& decoder_;
  std::map<std::string, at::Tensor> matrices_;
};

TEST(InputSquares, AreThoseOfAPlainDoubleComputation) {
  test::TinyModel model("llama");
  const auto adapters = random_adapters(*model.decoder, {"q_proj", "down_proj"});
  InputSquares squares(*model.decoder);
  squares.add(batch_of_documents());
  const auto matrix = squares.matrix({"rows.jsonl"}, 512);
  PlainLlama plain(*model.decoder);
  for (const auto& document : kDocuments) plain.run(document);

  ASSERT_EQ(plain.squares_C.size(), 14u);
  EXPECT_EQ(matrix.entries.size(), 14u);
  EXPECT_EQ(matrix.chunk_count, 1u);
  for (const auto& [name, expected_C] : plain.squares_C) {
    ASSERT_TRUE(matrix.entries.contains(name)) << name;
    const auto& entry = matrix.entries.at(name);
    EXPECT_THAT(entry.counts, testing::ElementsAre(18)) << name;
    ASSERT_EQ(static_cast<int64_t>(entry.sums.size()), expected_C.numel()) << name;
    for (int64_t column = 0; column < expected_C.numel(); ++column) {
      const double expected = expected_C[column].item<double>();
      EXPECT_NEAR(entry.sums[static_cast<size_t>(column)], expected, 2e-5 * expected) << name << " column " << column;
    }
  }
}

TEST(InputSquares, AddUpOverBatches) {
  test::TinyModel model("llama");
  InputSquares together(*model.decoder), apart(*model.decoder);
  together.add(batch_of_documents());
  for (const auto& document : kDocuments) {
    Batch batch;
    batch.add_document(document);
    apart.add(batch);
  }
  const auto expected = together.matrix({}, 1), got = apart.matrix({}, 1);
  EXPECT_EQ(got.chunk_count, 2u);
  for (const auto& [name, entry] : expected.entries) {
    EXPECT_EQ(got.entries.at(name).counts, entry.counts) << name;
    for (size_t i = 0; i < entry.sums.size(); ++i) EXPECT_NEAR(got.entries.at(name).sums[i], entry.sums[i], 1e-5 * entry.sums[i]) << name;
  }
}

struct Seen : InputObserver {
  std::map<std::pair<std::string, int64_t>, at::Tensor> inputs;
  void see(const Linear& linear, int64_t expert, const at::Tensor& p_NC) override { inputs[{linear.ours, expert}] = p_NC.to(at::kDouble); }
};

// What an expert's second matrix multiplies with, from what its first ones do.
TEST(InputSquares, ExpertsSeeTheirOwnTokens) {
  for (const char* family : {"qwen3_moe", "gpt_oss"}) {
    test::TinyModel model(family);
    const auto adapters = random_adapters(*model.decoder, {"gate_up_proj", "down_proj"});
    Seen seen;
    auto batch = batch_of_documents();
    const auto unseen = model.decoder->forward(batch);
    batch.observer = &seen;
    EXPECT_TRUE(model.decoder->forward(batch).equal(unseen)) << family;
    int64_t tokens = 0, checked = 0;
    const auto linears = model.decoder->linears();
    for (size_t i = 0; i < linears.size(); ++i) {
      const auto* linear = linears[i];
      if (!linear->is_bank() || linear->parts() != 2) continue;
      const Linear* down = linears[i + 1];
      for (int64_t expert = 0; expert < linear->num_experts; ++expert) {
        const auto found = seen.inputs.find({linear->ours, expert});
        if (found == seen.inputs.end()) continue;
        tokens += found->second.size(0);
        const auto part = [&](int64_t index) {
          const auto& weight = linear->experts[static_cast<size_t>(expert * 2 + index)];
          auto matrix = weight.matrix(at::kFloat, at::kCPU).to(at::kDouble);
          if (linear->adapter) {
            const auto a = linear->adapter->lora_a_RC.detach().narrow(0, expert * 3, 3).to(at::kDouble);
            const auto b = linear->adapter->lora_b_OR.detach().narrow(0, expert * linear->outputs() + index * weight.rows(), weight.rows()).to(at::kDouble);
            matrix = matrix + linear->adapter->scale * at::matmul(b, a);
          }
          auto y = at::matmul(found->second, matrix.t());
          if (linear->bias_O.defined()) y = y + linear->bias_O[expert].narrow(0, index * weight.rows(), weight.rows()).to(at::kDouble);
          return y;
        };
        const auto gate = part(0), up = part(1);
        const auto expected = std::string(family) == "gpt_oss" ? at::clamp_max(gate, 7.0) * at::sigmoid(1.702 * at::clamp_max(gate, 7.0)) * (at::clamp(up, -7.0, 7.0) + 1)
                                                               : gate * at::sigmoid(gate) * up;
        EXPECT_LT((seen.inputs.at({down->ours, expert}) - expected).abs().max().item<double>(), 1e-4 * expected.abs().max().item<double>()) << family << " " << down->ours << " " << expert;
        ++checked;
      }
    }
    EXPECT_EQ(tokens, 2 * 2 * 18) << family << ": two experts a token, two layers";
    EXPECT_GT(checked, 4) << family;
  }
}

struct Exports {
  test::TinyModel model;
  test::TemporaryFolder out;
  explicit Exports(const char* family) : model(family) {}
  ExportResult to(const std::string& format, const std::string& name, std::shared_ptr<const ImportanceMatrix> importance) {
    ExportRequest request;
    request.base = model.folder.path();
    request.decoder = model.decoder.get();
    request.format = format;
    request.out = out / name;
    request.importance = std::move(importance);
    return export_model(request);
  }
  std::shared_ptr<ImportanceMatrix> importance() {
    InputSquares squares(*model.decoder);
    squares.add(batch_of_documents());
    return std::make_shared<ImportanceMatrix>(squares.matrix({"rows.jsonl"}, 512));
  }
};

// Every expert's matrix by its own importances, as they lie in the file.
TEST(ExportWithImportance, ExpertsAreQuantisedByTheirOwn) {
  Exports exports("qwen3_moe");
  const auto importance = exports.importance();
  const auto result = exports.to("gguf:IQ4_NL", "model.gguf", importance);
  EXPECT_THAT(result.notes, Contains(HasSubstr("have no entry in the importance matrix (token_embd.weight")));
  const GgufFile file(result.path);
  EXPECT_EQ(file.get_string("quantize.imatrix.dataset"), "rows.jsonl");
  EXPECT_EQ(file.get_int("quantize.imatrix.entries_count"), static_cast<int64_t>(importance->entries.size()));
  int checked = 0;
  for (const auto& tensor : file.tensors()) {
    if (tensor.name != "blk.1.ffn_gate_exps.weight" && tensor.name != "blk.0.ffn_up_exps.weight" && tensor.name != "blk.1.attn_output.weight") continue;
    ASSERT_EQ(tensor.type, TensorType::kIQ4_NL);
    const auto weights = importance->importance_of(tensor.name);
    const int64_t matrices = tensor.shape.size() == 3 ? tensor.shape[0] : 1, columns = tensor.shape.back();
    ASSERT_EQ(static_cast<int64_t>(weights.size()), matrices * columns) << tensor.name;
    std::vector<std::byte> expected;
    for (const auto& weight : exports.model.decoder->weights()) {
      if (weight.rule->gguf != tensor.name) continue;
      const auto* values = reinterpret_cast<const float*>(weight.tensor->bytes.data());
      std::vector<std::byte> bytes(tensor.bytes.size() / static_cast<size_t>(matrices));
      const auto place = static_cast<size_t>(tensor.shape.size() == 3 ? weight.rule->gguf_form.first / weight.tensor->num_elements() : 0);
      quantize(tensor.type, values, weight.tensor->num_elements() / columns, columns, bytes.data(), std::span(weights).subspan(place * static_cast<size_t>(columns), static_cast<size_t>(columns)));
      expected.insert(expected.end(), bytes.begin(), bytes.end());
    }
    EXPECT_TRUE(std::ranges::equal(expected, tensor.bytes)) << tensor.name;
    ++checked;
  }
  EXPECT_EQ(checked, 3);
}

TEST(ExportWithImportance, WhatDoesNotFitIsRefused) {
  Exports exports("llama");
  const auto importance = exports.importance();
  exports.to("gguf:Q4_0", "plain.gguf", nullptr);
  exports.to("gguf:Q4_0", "weighted.gguf", importance);
  EXPECT_NE(test::read_file(exports.out / "plain.gguf"), test::read_file(exports.out / "weighted.gguf"));
  for (const char* form : {"gguf:F16", "gguf:Q8_0", "safetensors"})
    EXPECT_THAT(test::error_of([&] { exports.to(form, "no.gguf", importance); }), HasSubstr("expected an importance matrix with a form of fewer than 8 bits that searches for its scales")) << form;
  auto other = std::make_shared<ImportanceMatrix>();
  other->entries["blk.9.attn_q.weight"] = {{1, 2}, {1}};
  EXPECT_THAT(test::error_of([&] { exports.to("gguf:Q4_0", "no.gguf", other); }), HasSubstr("expected an importance matrix of this model's tensors"));
  auto short_of = std::make_shared<ImportanceMatrix>(*importance);
  short_of->entries.at("blk.1.attn_v.weight").sums.resize(16);
  EXPECT_THAT(test::error_of([&] { exports.to("gguf:Q4_0", "no.gguf", short_of); }), HasSubstr("blk.1.attn_v.weight"));
  EXPECT_FALSE(std::filesystem::exists(exports.out / "no.gguf"));
}

}  // namespace
}  // namespace graft
