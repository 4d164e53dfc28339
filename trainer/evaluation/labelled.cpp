#include "trainer/evaluation/labelled.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

#include "kernels/common/error.h"
#include "kernels/elementwise/rows_cpu.h"
#include "trainer/evaluation/label_tokens.h"
#include "trainer/generation/generator.h"

namespace graft {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  const auto begin = text.find_first_not_of(kSpace);
  return begin == std::string_view::npos ? "" : text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::ranges::equal(a, b, {}, lower, lower);
}

// A row on its way through a group.
struct RowWork {
  const Row* row;
  LabelledAnswer* answer;
  std::vector<int32_t> prompt;                     // as a server sends it
  LabelTokens::RowTrie labels;
  std::optional<LabelSearch> search;
  std::vector<int32_t> chain, cached;              // being expanded; tokens after the context that the cache holds
};

void read_greedy(const Generator& generator, SequenceBatch& batch, const at::Tensor& hidden_DC, std::span<RowWork> works, int64_t max_new_tokens,
                 std::span<const std::string> texts) {
  GenerationOptions options;
  options.max_new_tokens = max_new_tokens;
  std::vector<std::vector<int32_t>> prompts;   // read for a repetition penalty only, which greedy answers have not
  for (const auto& work : works) prompts.push_back(work.prompt);
  const auto generations = generator.continue_from(batch, hidden_DC, prompts, options);
  for (size_t d = 0; d < works.size(); ++d) {
    auto& answer = *works[d].answer;
    answer.text = trimmed(generations[d].text);
    answer.finished = generations[d].stop == StopReason::kStopToken;
    answer.greedy = match_label(answer.text, texts);
    batch.cut_back(d, static_cast<int64_t>(works[d].prompt.size()));
  }
}

// Expands each row's chain from the hidden states after each of its nodes, which follow one another in hidden_MC.
void expand_chains(const Decoder& decoder, const at::Tensor& hidden_MC, std::span<RowWork> works) {
  std::vector<std::pair<size_t, size_t>> owner;   // of a hidden state: row, place in its chain
  for (size_t d = 0; d < works.size(); ++d) {
    for (size_t i = 0; i < works[d].chain.size(); ++i) owner.emplace_back(d, i);
  }
  std::vector<std::map<int32_t, double>> known;   // per node of the current chain: log p of the children
  for_each_logits(decoder, hidden_MC, [&](int64_t m, std::span<float> logits) {
    const auto [d, i] = owner[static_cast<size_t>(m)];
    auto& work = works[d];
    const auto& trie = *work.labels.trie;
    if (i == 0) known.clear();
    auto& children = known.emplace_back();
    for (const auto child : trie.node(work.chain[i]).children) children[trie.node(child).token] = logits[static_cast<size_t>(trie.node(child).token)];
    const auto size = static_cast<int64_t>(logits.size());
    const float maximum = rows::maximum(logits.data(), size);
    const double log_sum = maximum + std::log(static_cast<double>(rows::exp_and_sum(logits.data(), size, 1, maximum)));
    for (auto& [token, value] : children) value -= log_sum;
    if (i + 1 == work.chain.size()) {
      work.search->expand(work.chain, [&](size_t place, int32_t token) { return known[place].at(token); });
    }
  });
}

// Hidden states at the end of each row's label context [D, C], which is the prompt unless the template writes something before the answer.
at::Tensor at_label_context(SequenceBatch& batch, const at::Tensor& hidden_DC, std::span<RowWork> works) {
  const bool as_prompted = std::ranges::all_of(works, [](const RowWork& work) { return work.labels.context == work.prompt; });
  if (as_prompted) return hidden_DC;
  std::vector<std::vector<int32_t>> tails;
  for (size_t d = 0; d < works.size(); ++d) {
    const auto& context = works[d].labels.context;
    const auto common = std::min(common_prefix(context, works[d].prompt), context.size() - 1);
    batch.cut_back(d, static_cast<int64_t>(common));
    tails.emplace_back(context.begin() + static_cast<std::ptrdiff_t>(common), context.end());
  }
  return batch.extend(tails, Keep::kLast);
}

// One cache a row: a jump to another branch cuts it back to the common prefix and reads the new path's few tokens again.
void search_labels(const Decoder& decoder, SequenceBatch& batch, const at::Tensor& hidden_DC, std::span<RowWork> works) {
  for (auto& work : works) {
    work.search.emplace(*work.labels.trie);
    work.chain = {0};   // the root: its hidden state is there
  }
  expand_chains(decoder, hidden_DC, works);
  while (true) {
    std::vector<std::vector<int32_t>> tokens(works.size());
    bool any = false;
    for (size_t d = 0; d < works.size(); ++d) {
      auto& work = works[d];
      work.chain = work.search->next();
      if (work.chain.empty()) continue;
      any = true;
      const auto& trie = *work.labels.trie;
      const auto begin = trie.path(work.chain.front()), end = trie.path(work.chain.back());
      // The last token of the first node's path is read again where it is cached: its hidden state is wanted.
      const size_t common = std::min(common_prefix(work.cached, begin), begin.size() - 1);
      batch.cut_back(d, static_cast<int64_t>(work.labels.context.size() + common));
      // Up to `begin` for the cache only; from its last token on for the chain.
      tokens[d].assign(end.begin() + static_cast<std::ptrdiff_t>(common), end.end());
      work.cached = end;
    }
    if (!any) break;
    const auto hidden_NC = batch.extend(tokens, Keep::kAll);
    std::vector<int64_t> wanted;
    int64_t at = 0;
    for (size_t d = 0; d < works.size(); ++d) {
      at += static_cast<int64_t>(tokens[d].size());
      for (size_t i = works[d].chain.size(); i > 0; --i) wanted.push_back(at - static_cast<int64_t>(i));
    }
    expand_chains(decoder, select_rows(hidden_NC, wanted), works);
  }
}

void read_best(RowWork& work) {
  auto& answer = *work.answer;
  answer.best = work.search->best();
  answer.best_log_probability = work.search->best_log_probability();
  const auto bounds = work.search->bounds();
  for (int32_t label = 0; label < static_cast<int32_t>(bounds.size()); ++label) {
    const double upper = bounds[static_cast<size_t>(label)].upper;
    if (label == answer.best || (answer.second >= 0 && upper <= answer.second_log_probability)) continue;
    answer.second = label;
    answer.second_log_probability = upper;
  }
}

void evaluate_group(const Generator& generator, std::span<RowWork> works, const LabelledOptions& options, int64_t max_new_tokens,
                    std::span<const std::string> texts) {
  SequenceBatch batch(generator.decoder());
  std::vector<std::vector<int32_t>> prompts;
  for (const auto& work : works) prompts.push_back(work.prompt);
  const auto hidden_DC = batch.start(prompts, max_new_tokens);
  if (options.greedy) read_greedy(generator, batch, hidden_DC, works, max_new_tokens, texts);
  if (!options.labels) return;
  search_labels(generator.decoder(), batch, at_label_context(batch, hidden_DC, works), works);
  for (auto& work : works) read_best(work);
}

}  // namespace

double LabelledAnswer::confidence() const { return best < 0 ? 0 : std::exp(best_log_probability); }

int32_t match_label(std::string_view answer, std::span<const std::string> texts) {
  answer = trimmed(answer);
  for (const bool exact : {true, false}) {
    for (size_t label = 0; label < texts.size(); ++label) {
      const auto text = trimmed(texts[label]);
      if (exact ? text == answer : equal_ignoring_case(text, answer)) return static_cast<int32_t>(label);
    }
  }
  return -1;
}

std::map<std::string, std::string> label_texts(std::span<const Row> rows) {
  std::map<std::string, std::string> texts;
  for (const auto& row : rows) {
    if (!row.label) fail("evaluation", "expected rows with a label, got one without ({}) — read the file with --format labelled", row_place(row));
    const auto answer = answer_of(row);
    const auto [place, added] = texts.emplace(*row.label, answer);
    if (!added && place->second != answer) {
      fail("evaluation", "expected one answer for label \"{}\", got \"{}\" and \"{}\" ({}) — let `completion` depend on the label only", *row.label,
           place->second, answer, row_place(row));
    }
  }
  return texts;
}

LabelledEvaluation evaluate_labelled(const Decoder& decoder, const TemplateContext& context, std::span<const Row> rows,
                                     const LabelledOptions& options) {
  const auto started = std::chrono::steady_clock::now();
  LabelledEvaluation evaluation;
  std::vector<std::string> texts;
  for (const auto& [label, text] : options.texts.empty() ? label_texts(rows) : options.texts) {
    evaluation.labels.push_back(label);
    texts.push_back(text);
  }
  evaluation.answers.resize(rows.size());
  LabelTokens label_tokens(context, texts);
  std::vector<RowWork> works;
  for (size_t r = 0; r < rows.size(); ++r) {
    const auto& row = rows[r];
    const auto place = row.label ? std::ranges::lower_bound(evaluation.labels, *row.label) : evaluation.labels.end();
    if (place == evaluation.labels.end() || *place != *row.label) {
      fail("evaluation", "expected a label among the {} known ones, got {} ({}) — correct it, or add it to the training rows", evaluation.labels.size(),
           row.label ? '"' + *row.label + '"' : "none", row_place(row));
    }
    auto& answer = evaluation.answers[r];
    answer.gold = static_cast<int32_t>(place - evaluation.labels.begin());
    works.push_back({&row, &answer, encode_prompt(context, prompt_of(row)).ids, label_tokens.of_row(row, answer.gold), {}, {}, {}});
    evaluation.tokens += static_cast<int64_t>(works.back().prompt.size());
  }
  const int64_t max_new_tokens = std::max<int64_t>(16, 2 * label_tokens.longest());
  std::vector<int64_t> sizes;
  for (const auto& work : works) {
    const auto longest = static_cast<int64_t>(std::max(work.prompt.size(), work.labels.context.size())) + label_tokens.longest();
    if (longest > decoder.spec().max_positions) {
      fail("evaluation", "expected prompt and label of at most {} tokens, the model's context, got {} ({}) — shorten the row", decoder.spec().max_positions,
           longest, row_place(*work.row));
    }
    sizes.push_back(longest + max_new_tokens);
  }
  const Generator generator(decoder, context.tokenizer);
  for (size_t first = 0; first < works.size();) {
    const auto count = count_that_fit(sizes, first, options.batch_tokens);
    const std::span group(works.data() + first, count);
    evaluate_group(generator, group, options, max_new_tokens, texts);
    for (auto& work : group) work.search.reset();
    first += count;
    if (options.progress) options.progress(static_cast<int64_t>(first));
  }
  evaluation.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return evaluation;
}

nlohmann::ordered_json to_json(const LabelledEvaluation& evaluation) {
  nlohmann::ordered_json answers = nlohmann::ordered_json::array();
  for (const auto& answer : evaluation.answers) {
    answers.push_back({answer.gold, answer.text, answer.finished, answer.greedy, answer.best, answer.best_log_probability, answer.second, answer.second_log_probability});
  }
  return {{"labels", evaluation.labels}, {"tokens", evaluation.tokens}, {"answers", answers}};
}

LabelledEvaluation labelled_evaluation_from_json(const nlohmann::ordered_json& json) {
  LabelledEvaluation evaluation;
  evaluation.labels = json.at("labels").get<std::vector<std::string>>();
  evaluation.tokens = json.at("tokens").get<int64_t>();
  for (const auto& values : json.at("answers")) {
    evaluation.answers.push_back({values.at(0), values.at(1), values.at(2), values.at(3), values.at(4), values.at(5), values.at(6), values.at(7)});
  }
  return evaluation;
}

}  // namespace graft
