#include "trainer/runs/student_answers.h"

#include <algorithm>
#include <cmath>

#include "trainer/generation/generator.h"
#include "trainer/runs/prepared_run.h"
#include "trainer/runs/run_state.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kPromptsTogether = 64;   // prompts that are answered beside each other, whatever the number of processes

// Answers to the prompts of this chunk, as the student would write them now.
std::vector<Generation> write_chunk(const PreparedRun& run, const Generator& generator, std::span<const std::vector<int32_t>> prompts, int64_t step, size_t first) {
  const auto& objective = run.recipe.objective;
  GenerationOptions options;
  options.sampling.temperature = objective.on_policy_temperature;
  options.sampling.top_p = objective.on_policy_top_p;
  options.sampling.seed = static_cast<uint64_t>(run.recipe.run.seed) * 1000003u + static_cast<uint64_t>(step);
  options.max_new_tokens = objective.on_policy_max_new_tokens;
  options.first_row = first;
  return generator.generate(prompts, options);
}

// `answers` have their steps and sequences, and get the rest.
void write_answers(const PreparedRun& run, std::vector<StudentAnswer>& answers) {
  std::vector<std::vector<int32_t>> prompts;
  for (const auto& answer : answers) prompts.push_back(encode_prompt(run.context, prompt_of(run.dataset.train.row_of_sequence(answer.sequence))).ids);
  const Generator generator(*run.decoder, run.context.tokenizer);
  const auto ranks = static_cast<size_t>(run.group->size());
  auto mine = Json::array();
  for (size_t first = 0, chunk = 0; first < prompts.size(); first += kPromptsTogether, ++chunk) {
    if (chunk % ranks != static_cast<size_t>(run.group->rank())) continue;
    const auto generated = write_chunk(run, generator, std::span(prompts).subspan(first, std::min(kPromptsTogether, prompts.size() - first)), answers.front().step, first);
    for (size_t i = 0; i < generated.size(); ++i) {
      auto ids = generated[i].ids;
      if (generated[i].stop == StopReason::kStopToken) ids.push_back(generated[i].stop_token);
      mine.push_back({first + i, ids});
    }
  }
  for (const auto& text : run.group->exchange(mine.dump(), "sharing the student's answers")) {
    for (const auto& entry : Json::parse(text)) {
      auto& answer = answers.at(entry[0].get<size_t>());
      answer.ids = prompts[entry[0].get<size_t>()];
      const auto written = entry[1].get<std::vector<int32_t>>();
      answer.supervised.assign(answer.ids.size(), 0);
      answer.supervised.insert(answer.supervised.end(), written.size(), 1);
      answer.ids.insert(answer.ids.end(), written.begin(), written.end());
    }
  }
}

}  // namespace

Json to_json(const StudentAnswer& answer) {
  const auto num_prompt = std::count(answer.supervised.begin(), answer.supervised.end(), uint8_t{0});
  return {{"step", answer.step}, {"sequence", answer.sequence}, {"prompt", num_prompt}, {"ids", answer.ids}};
}

StudentAnswer student_answer_from_json(const Json& json) {
  StudentAnswer answer;
  answer.step = json.at("step").get<int64_t>();
  answer.sequence = json.at("sequence").get<int64_t>();
  answer.ids = json.at("ids").get<std::vector<int32_t>>();
  answer.supervised.assign(answer.ids.size(), 1);
  std::fill_n(answer.supervised.begin(), json.at("prompt").get<size_t>(), uint8_t{0});
  return answer;
}

std::vector<int64_t> on_policy_sequences(const PreparedRun& run, int64_t step) {
  const double share = run.recipe.objective.on_policy_share;
  if (share == 0) return {};
  const auto sequences = run.sequences_of_step(step);
  const auto has_answer = [&](int64_t sequence) { return run.dataset.train.row_of_sequence(sequence).kind != RowKind::kPrompt; };
  // The order of a step's rows is drawn: its first ones are a random choice.
  auto left = static_cast<int64_t>(std::llround(share * static_cast<double>(sequences.size()))) -
              std::count_if(sequences.begin(), sequences.end(), [&](int64_t sequence) { return !has_answer(sequence); });
  std::vector<int64_t> chosen;
  for (const auto sequence : sequences) {
    if (!has_answer(sequence) || left-- > 0) chosen.push_back(sequence);
  }
  return chosen;
}

std::vector<StudentAnswer> take_student_answers(const PreparedRun& run, RunState& state, int64_t step) {
  if (run.recipe.objective.on_policy_share == 0) return {};
  const auto of_step = [&](const StudentAnswer& answer) { return answer.step == step; };
  if (std::none_of(state.answers.begin(), state.answers.end(), of_step)) {
    state.answers.clear();
    for (int64_t later = step; later < std::min(step + run.recipe.objective.on_policy_every, run.total_steps); ++later) {
      for (const auto sequence : on_policy_sequences(run, later)) state.answers.push_back({later, sequence, {}, {}});
    }
    if (!state.answers.empty()) write_answers(run, state.answers);
  }
  std::vector<StudentAnswer> taken;
  std::copy_if(state.answers.begin(), state.answers.end(), std::back_inserter(taken), of_step);
  std::erase_if(state.answers, of_step);
  return taken;
}

}  // namespace graft
