// How well a model predicts rows: mean negative log-likelihood per supervised token, perplexity = exp of it, top-1 agreement.
#pragma once
#include <cstdint>
#include <functional>
#include <span>

#include "data/rows/dataset.h"
#include "data/templates/conversation.h"
#include "trainer/evaluation/bootstrap.h"
#include "trainer/models/decoder.h"

namespace graft {

struct PerplexityOptions {
  int64_t max_tokens = 1024;     // of one window of a document (format text), as in training; conversations stay whole
  int64_t pack_tokens = 2048;    // of one forward pass
  BootstrapOptions bootstrap;
  std::function<void(int64_t done, int64_t total)> progress = {};   // sequences
};

struct PerplexityScores {
  int64_t rows = 0, tokens = 0, supervised_tokens = 0;
  Interval loss;                 // nats per supervised token; rows are resampled
  double perplexity = 0, top1 = 0;
  double seconds = 0;
};

// Row weights are not applied. UserError: no supervised token at all, a row longer than the model's context (named).
PerplexityScores evaluate_perplexity(const Decoder& decoder, const TemplateContext& context, std::span<const Row> rows,
                                     const PerplexityOptions& options = {});

}  // namespace graft
