// The tokens of each label as the template writes the assistant's turn after a row's prompt, its end token included.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/rows/dataset.h"
#include "data/templates/conversation.h"
#include "trainer/evaluation/label_trie.h"

namespace graft {

// One answer after one row's prompt: ids = context, then tokens.
struct RenderedAnswer {
  std::vector<int32_t> context;   // everything before the first supervised token of the last turn
  std::vector<int32_t> tokens;    // the supervised tokens: the answer and its end token
};
// prompt: as prompt_of gives it. UserError when the template supervises nothing of the answer.
RenderedAnswer render_answer(const TemplateContext& context, const nlohmann::ordered_json& prompt, const std::string& answer);

// Tries of a data set. Labels have the same tokens after every prompt unless the template depends on more, so one trie serves all rows; that it
// does is checked at each row with its own label, and a row where it does not gets a trie of its own.
class LabelTokens {
 public:
  LabelTokens(const TemplateContext& context, std::vector<std::string> texts) : context_(context), texts_(std::move(texts)) {}

  struct RowTrie {
    std::shared_ptr<const LabelTrie> trie;
    std::vector<int32_t> context;
  };
  // gold: index of the row's own label.
  RowTrie of_row(const Row& row, int32_t gold);
  int64_t longest() const { return longest_; }   // tokens of a label, of the rows so far

 private:
  void make_trie(const nlohmann::ordered_json& prompt);

  const TemplateContext& context_;
  std::vector<std::string> texts_;
  std::vector<std::vector<int32_t>> tokens_;     // of the newest trie
  std::shared_ptr<const LabelTrie> trie_;
  int64_t longest_ = 0;
};

}  // namespace graft
