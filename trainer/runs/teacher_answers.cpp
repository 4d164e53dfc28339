#include "trainer/runs/teacher_answers.h"

#include <algorithm>
#include <set>

#include "checkpoints/hash.h"
#include "kernels/common/error.h"
#include "trainer/generation/generator.h"
#include "trainer/runs/stop_signals.h"
#include "trainer/runs/teacher_inputs.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kPromptsOfChunk = 64;   // prompts that are answered beside each other

// The teacher as it is served: its own template and tokenizer.
TemplateContext teacher_context(const PreparedRun& run) { return template_context(run.teacher_files, &run.recipe); }

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\r\n"), last = text.find_last_not_of(" \t\r\n");
  return first == std::string::npos ? std::string() : text.substr(first, last - first + 1);
}

GenerationOptions generation_options(const PreparedRun& run, std::span<const Row* const> rows) {
  const auto& teacher = run.recipe.teacher;
  GenerationOptions options;
  options.sampling.temperature = teacher.answers_temperature;
  options.sampling.top_p = teacher.answers_top_p;
  options.sampling.seed = static_cast<uint64_t>(run.recipe.run.seed);
  options.max_new_tokens = teacher.answers_max_new_tokens;
  for (const auto* row : rows) options.rows.push_back(std::stoull(row->row_id.substr(0, 16), nullptr, 16));   // the same row, the same draws
  options.on_token = [](size_t, int32_t) { return pending_stop_signal() == 0; };
  return options;
}

}  // namespace

TeacherIdentity answers_identity(const PreparedRun& run) {
  const auto& teacher = run.recipe.teacher;
  const auto context = teacher_context(run);
  TeacherIdentity identity;
  identity.teacher = teacher_weights_hash(run);
  identity.tokenizer = context.tokenizer->fingerprint;
  identity.chat_template = context.chat_template ? context.chat_template->fingerprint() : "none";
  identity.temperature = teacher.answers_temperature;
  identity.seed = static_cast<uint64_t>(run.recipe.run.seed);
  identity.answers = TeacherIdentity::Answers{teacher.answers_top_p, teacher.answers_max_new_tokens, context.now, context.arguments};
  return identity;
}

AnswerCounts take_teacher_answers(const Recipe& recipe, const TeacherStore* store, std::vector<Row>& rows) {
  AnswerCounts counts;
  std::vector<Row> kept;
  for (auto& row : rows) {
    if (row.kind == RowKind::kText) fail("teach", "expected rows with a prompt with teacher.signal answers, got one of format text ({}) — leave it out", row_place(row));
    if (!store || !store->contains(row.row_id)) {
      ++counts.missing;
      kept.push_back(std::move(row));
      continue;
    }
    const auto stored = Json::parse(store->text(row.row_id));
    const auto answer = stored.at("answer").get<std::string>();
    if (!stored.at("finished").get<bool>()) {
      ++counts.unfinished;
    } else if (recipe.teacher.answers_keep == "right" && trimmed(answer) != trimmed(answer_of(row))) {
      ++counts.wrong;
    } else {
      ++counts.kept;
      row.json = prompt_of(row);
      row.json["messages"].push_back({{"role", "assistant"}, {"content", answer}});
      row.kind = RowKind::kConversation;
      row.row_id = sha256(row.json.dump());
      kept.push_back(std::move(row));
    }
  }
  rows = std::move(kept);
  return counts;
}

std::vector<const Row*> rows_without_answers(const PreparedRun& run, const TeacherStore& store) {
  std::vector<const Row*> missing;
  std::set<std::string> seen;
  for (const auto* split : {&run.dataset.train, &run.dataset.validation}) {
    for (const auto& row : split->rows) {
      if (!store.contains(row.row_id) && seen.insert(row.row_id).second) missing.push_back(&row);
    }
  }
  return missing;
}

WrittenAnswers write_teacher_answers(const PreparedRun& run, TeacherStore& store, const std::vector<const Row*>& rows, const std::function<void(int64_t)>& progress) {
  const auto context = teacher_context(run);
  if (!context.chat_template) fail("teach", "expected a teacher with a chat template, got none — name one in data.template, or a teacher that has one");
  const auto teacher = load_teacher(run.recipe.teacher);
  const Generator generator(*teacher.decoder, context.tokenizer);
  WrittenAnswers written;
  for (size_t first = 0; first < rows.size(); first += kPromptsOfChunk) {
    const auto chunk = std::span(rows).subspan(first, std::min(kPromptsOfChunk, rows.size() - first));
    std::vector<std::vector<int32_t>> prompts;
    for (const auto* row : chunk) prompts.push_back(encode_prompt(context, prompt_of(*row)).ids);
    auto options = generation_options(run, chunk);
    options.progress = [&](int64_t finished) { progress(static_cast<int64_t>(first) + finished); };
    const auto answers = generator.generate(prompts, options);
    if (pending_stop_signal() != 0) break;   // some of them may be cut
    std::vector<TaughtRow> taught;
    for (size_t i = 0; i < answers.size(); ++i) {
      const bool finished = answers[i].stop == StopReason::kStopToken;
      const auto text = Json({{"answer", answers[i].text}, {"finished", finished}}).dump(-1, ' ', false, Json::error_handler_t::replace);
      const auto bytes = std::as_bytes(std::span(text));
      taught.push_back({chunk[i]->row_id, static_cast<int64_t>(answers[i].ids.size()), {bytes.begin(), bytes.end()}});
      written.tokens += static_cast<int64_t>(answers[i].ids.size());
      written.finished += finished;
    }
    store.add(taught);
    written.rows += static_cast<int64_t>(taught.size());
  }
  return written;
}

}  // namespace graft
