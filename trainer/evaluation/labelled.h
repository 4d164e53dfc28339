// Labelled rows answered in two ways, from one prefill: free greedy decoding, as a server would answer, and the label with the highest
// probability, found exactly (label_trie.h).
//
// The confidence of an answer is p(best): the probability that the model writes exactly that label and its end token. It is not divided by the
// probability of all labels: that would need every label of every row, and would call a row certain on which the model wants to write
// something else altogether.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "data/rows/dataset.h"
#include "data/templates/conversation.h"
#include "trainer/models/decoder.h"

namespace graft {

// The text that the assistant answers with for each label. UserError: a row without a label, or a label with two texts.
std::map<std::string, std::string> label_texts(std::span<const Row> rows);

struct LabelledOptions {
  bool greedy = true, labels = true;           // which of the two ways
  std::map<std::string, std::string> texts;    // the labels to choose from; empty: those of the rows
  int64_t batch_tokens = 8192;                 // prompts whose keys and values are held at a time
  std::function<void(int64_t rows_done)> progress = {};
};

struct LabelledAnswer {
  int32_t gold = -1;                  // index of LabelledEvaluation::labels
  std::string text;                   // greedy: trimmed
  bool finished = false;              // greedy: ended by a stop token, not by the bound (twice the longest label, at least 16 tokens)
  int32_t greedy = -1;                // the label whose text this is: exactly, else ignoring case; -1: none
  int32_t best = -1;                  // the most probable label
  double best_log_probability = 0;
  double confidence() const;          // exp(best_log_probability)
  int32_t second = -1;                // the next one: by the upper bound that the search left
  double second_log_probability = 0;  // at most
};

struct LabelledEvaluation {
  std::vector<std::string> labels;    // sorted
  std::vector<LabelledAnswer> answers;   // of each row
  int64_t tokens = 0;                 // of all prompts
  double seconds = 0;
};

// Between processes: labels and answers, without the time.
nlohmann::ordered_json to_json(const LabelledEvaluation& evaluation);
LabelledEvaluation labelled_evaluation_from_json(const nlohmann::ordered_json& json);

// UserError: no chat template, a row without a label or with one that is not among options.texts, a prompt beyond the model's context (named).
LabelledEvaluation evaluate_labelled(const Decoder& decoder, const TemplateContext& context, std::span<const Row> rows,
                                     const LabelledOptions& options = {});

// Index of the text that `answer` is, without white space around it: exactly, else ignoring the case of ASCII letters; -1: none.
int32_t match_label(std::string_view answer, std::span<const std::string> texts);

}  // namespace graft
