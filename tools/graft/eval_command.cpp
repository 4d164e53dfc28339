// graft eval MODEL [--adapter DIR] --data FILE | --recipe RECIPE: accuracy and F1 with confusions for labelled rows, perplexity for others.
#include <algorithm>
#include <filesystem>
#include <optional>

#include <fmt/format.h>

#include "checkpoints/atomic_file.h"
#include "kernels/common/error.h"
#include "tools/graft/commands.h"
#include "trainer/runs/loaded_model.h"
#include "trainer/evaluation/labelled_report.h"
#include "trainer/evaluation/perplexity.h"
#include "trainer/report/log_file.h"
#include "trainer/report/progress.h"
#include "trainer/runs/recipe_inputs.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct Options {
  std::string model, adapter, compute = "bfloat16", method = "both";
  std::optional<std::string> data, format, text, label, prompt, completion, system, recipe, out;
  std::optional<double> threshold;
  int64_t limit = 0, examples = 0, batch_tokens = 8192, max_tokens = 1024;
  uint64_t seed = 0;
  bool compare = false;
};

// The recipe that says how rows become prompts: the one given, else the run's own.
std::optional<Recipe> recipe_of(const Options& options, const ModelFiles& files) {
  if (options.recipe) return load_recipe(*options.recipe, {});
  if (files.run) return load_recipe(*files.run / "recipe.yaml", {});
  return std::nullopt;
}

std::vector<SourceOptions> sources_of(const Options& options, const std::optional<Recipe>& recipe) {
  std::vector<SourceOptions> sources;
  if (recipe) {
    for (const auto& source : recipe->data.test) sources.push_back(source_options(source));
  }
  if (options.data) {   // another file, read as the recipe reads its test rows, or its training rows
    if (sources.empty() && recipe && !recipe->data.train.empty()) sources.push_back(source_options(recipe->data.train.front()));
    sources.resize(1);
    sources[0].path = *options.data;
  }
  if (sources.empty()) fail("eval", "expected --data FILE, or a recipe with data.test, got neither — name the rows to evaluate on");
  for (auto& source : sources) {
    if (options.format) source.format = *options.format;
    if (source.format.empty()) source.format = "labelled";
    if (options.text) source.text = options.text;
    if (options.label) source.label = options.label;
    if (options.prompt) source.prompt = options.prompt;
    if (options.completion) source.completion = options.completion;
    if (options.system) source.system = options.system;
  }
  return sources;
}

std::vector<Row> rows_of(const std::vector<SourceOptions>& sources) {
  std::vector<Row> rows;
  for (const auto& source : sources) {
    auto read = read_rows(source);
    std::move(read.begin(), read.end(), std::back_inserter(rows));
  }
  return rows;
}

// `limit` rows, those with the smallest hashes: a fixed sample, in file order, that does not depend on how the file is sorted.
std::vector<Row> sample(const std::vector<Row>& rows, int64_t limit) {
  if (limit <= 0 || limit >= static_cast<int64_t>(rows.size())) return rows;
  std::vector<size_t> order(rows.size());
  for (size_t row = 0; row < rows.size(); ++row) order[row] = row;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return rows[a].row_id < rows[b].row_id; });
  order.resize(static_cast<size_t>(limit));
  std::sort(order.begin(), order.end());
  std::vector<Row> chosen;
  for (const auto row : order) chosen.push_back(rows[row]);
  return chosen;
}

// The labels to choose from: all of the data's, also where --limit leaves rows out, and the training rows'.
std::map<std::string, std::string> all_labels(const std::vector<Row>& rows, const std::optional<Recipe>& recipe) {
  auto texts = label_texts(rows);
  if (!recipe) return texts;
  for (const auto& source : recipe->data.train) {
    if (source.format != "labelled") continue;
    if (!fs::exists(source.path)) {
      log().warning(fmt::format("the recipe's training rows are not there ({}): labels that occur only in them cannot be answered", source.path));
      continue;
    }
    texts.merge(label_texts(read_rows(source_options(source))));
  }
  return texts;
}

void write_json(const fs::path& path, const Json& json) {
  write_file_atomic(path, json.dump(1, ' ', false, Json::error_handler_t::replace) + '\n');
}

int evaluate_labels(LoadedModel& model, const std::vector<Row>& all, const std::vector<Row>& rows, const Options& options,
                    const std::optional<Recipe>& recipe, bool json) {
  LabelledOptions labelled;
  labelled.greedy = options.method != "labels";
  labelled.labels = options.method != "greedy";
  labelled.batch_tokens = options.batch_tokens;
  labelled.texts = all_labels(all, recipe);
  if (options.threshold && !labelled.labels) fail("eval", "expected --method labels or both with --threshold, got greedy — a greedy answer has no confidence");
  const auto evaluate = [&](const char* title) {
    Progress progress(log(), title, static_cast<int64_t>(rows.size()), {.unit = "rows/s"});
    labelled.progress = [&](int64_t done) { progress.update(done); };
    auto evaluation = evaluate_labelled(*model.decoder, model.context, rows, labelled);
    progress.finish();
    return evaluation;
  };
  const BootstrapOptions bootstrap{.seed = options.seed};
  std::optional<LabelledEvaluation> base;
  std::optional<LabelledReport> base_report;
  std::optional<EvaluatedModel> before;
  if (options.compare) {
    model.adapters->set_enabled(false);
    base = evaluate("eval base");
    model.adapters->set_enabled(true);
    base_report = report_of(*base, labelled, options.threshold, bootstrap);
    before.emplace(EvaluatedModel{*base, *base_report});
  }
  const auto evaluation = evaluate("eval");
  const auto report = report_of(evaluation, labelled, options.threshold, bootstrap);
  if (options.out) write_json(*options.out, evaluation_json(before, {evaluation, report}, rows, options.examples));

  std::string text = fmt::format("{} rows, {} labels, {} prompt tokens, {:.1f} rows/s\n\n", format_count(static_cast<double>(rows.size())), evaluation.labels.size(),
                                 format_count(static_cast<double>(evaluation.tokens)), static_cast<double>(rows.size()) / std::max(evaluation.seconds, 1e-9));
  if (base_report) text += fmt::format("accuracy of the base: {:.1f} %, with the adapter {:.1f} %\n\n", 100 * base_report->main().accuracy.value, 100 * report.main().accuracy.value);
  text += report_table(report);
  text.pop_back();
  if (!json) {
    log().result(text);
    return 0;
  }
  auto line = report_json(report);
  line["labels"] = evaluation.labels.size();
  line["seconds"] = evaluation.seconds;
  if (base_report) line["base"] = report_json(*base_report);
  log().result(line.dump());
  return 0;
}

Json perplexity_json(const PerplexityScores& scores) {
  return {{"rows", scores.rows}, {"tokens", scores.tokens}, {"supervised_tokens", scores.supervised_tokens}, {"loss", scores.loss.value},
          {"loss_interval", {scores.loss.low, scores.loss.high}}, {"perplexity", scores.perplexity}, {"top1", scores.top1}, {"seconds", scores.seconds}};
}

int evaluate_loss_of(LoadedModel& model, const std::vector<Row>& rows, const Options& options, bool json) {
  const auto evaluate = [&](const char* title) {
    PerplexityOptions perplexity;
    perplexity.max_tokens = options.max_tokens;
    perplexity.bootstrap.seed = options.seed;
    std::optional<Progress> progress;
    perplexity.progress = [&](int64_t done, int64_t total) {
      if (!progress) progress.emplace(log(), title, total, Progress::Options{.unit = "sequences/s"});
      progress->update(done);
    };
    auto scores = evaluate_perplexity(*model.decoder, model.context, rows, perplexity);
    if (progress) progress->finish();
    return scores;
  };
  std::optional<PerplexityScores> base;
  if (options.compare) {
    model.adapters->set_enabled(false);
    base = evaluate("eval base");
    model.adapters->set_enabled(true);
  }
  const auto scores = evaluate("eval");
  if (options.out) {
    Json file = {{"after", perplexity_json(scores)}};
    if (base) file["before"] = perplexity_json(*base);
    write_json(*options.out, file);
  }
  if (json) {
    auto line = perplexity_json(scores);
    if (base) line["base"] = perplexity_json(*base);
    log().result(line.dump());
    return 0;
  }
  const auto line = [](const PerplexityScores& s) {
    return fmt::format("{:<10} {:.4f} ({:.4f} to {:.4f})   perplexity {:.3f}   top-1 {:.1f} %", "loss", s.loss.value, s.loss.low, s.loss.high, s.perplexity, 100 * s.top1);
  };
  log().result(fmt::format("{} rows, {} tokens, {} of them supervised", format_count(static_cast<double>(scores.rows)),
                           format_count(static_cast<double>(scores.tokens)), format_count(static_cast<double>(scores.supervised_tokens))));
  if (base) log().result(line(*base) + "   (base)");
  log().result(line(scores));
  return 0;
}

int run(const Options& options, bool json) {
  const auto recipe = recipe_of(options, find_model(options.model));
  const auto all = rows_of(sources_of(options, recipe));   // before the model: a wrong file is found at once
  const auto rows = sample(all, options.limit);
  if (rows.size() < all.size()) log().info(fmt::format("{} of {} rows, chosen by their hashes", rows.size(), all.size()));
  auto model = load_model(options.model, options.adapter, options.compute, recipe ? &*recipe : nullptr);
  if (options.compare && !model.adapters) fail("eval", "expected an adapter to compare with the base, got a MODEL without one — give --adapter DIR or a run folder");
  const bool labelled = std::ranges::all_of(rows, [](const Row& row) { return row.label.has_value(); });
  return labelled ? evaluate_labels(model, all, rows, options, recipe, json) : evaluate_loss_of(model, rows, options, json);
}

}  // namespace

void add_eval_command(CommandLine& line) {
  auto* command = line.add("eval", "accuracy, F1 and confusions of labelled rows; perplexity of others");
  auto options = std::make_shared<Options>();
  command->add_option("MODEL", options->model, "model directory, .gguf file or run folder")->required();
  command->add_option("--adapter", options->adapter, "PEFT folder");
  command->add_option("--data", options->data, "rows: .jsonl, .csv, .tsv, .parquet; text files for --format text");
  command->add_option("--recipe", options->recipe, "take test rows, prompt and template from this recipe; a run folder has its own");
  command->add_option("--format", options->format, "of --data; default: the recipe's, else labelled")->check(CLI::IsMember({"labelled", "messages", "completion", "text"}));
  command->add_option("--text", options->text, "column of the text (default: text)");
  command->add_option("--label", options->label, "column of the label (default: label)");
  command->add_option("--prompt", options->prompt, "the question; {column} is replaced by that column (default: the text)");
  command->add_option("--completion", options->completion, "the answer, likewise (default: the label)");
  command->add_option("--system", options->system, "system message");
  command->add_option("--method", options->method, "greedy: free answers; labels: the most probable label; both")
      ->check(CLI::IsMember({"greedy", "labels", "both"}))->capture_default_str();
  command->add_option("--threshold", options->threshold, "answer only where the most probable label has at least this probability")->check(CLI::Range(0.0, 1.0));
  command->add_option("--limit", options->limit, "rows, a fixed sample; 0: all")->check(CLI::NonNegativeNumber)->capture_default_str();
  command->add_option("--out", options->out, "write evaluation.json");
  command->add_option("--examples", options->examples, "rows that stand in --out with their texts")->check(CLI::NonNegativeNumber)->capture_default_str();
  command->add_option("--max-tokens", options->max_tokens, "of one window of a text document")->check(CLI::Range(2, 1 << 20))->capture_default_str();
  command->add_option("--batch-tokens", options->batch_tokens, "tokens whose keys and values are held at a time")->check(CLI::PositiveNumber)->capture_default_str();
  command->add_option("--seed", options->seed, "of the bootstrap intervals")->capture_default_str();
  command->add_option("--compute", options->compute, "float32 or bfloat16")->check(CLI::IsMember({"float32", "bfloat16"}))->capture_default_str();
  command->add_flag("--compare", options->compare, "evaluate the base too");
  command->callback([=, &line] { line.chosen = [=, &line] { return run(*options, line.json); }; });
}

}  // namespace graft
