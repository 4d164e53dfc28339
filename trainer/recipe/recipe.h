// A recipe, resolved: plain structs that mirror the YAML keys of DESIGN section 8. The schema in recipe_schema.cpp reads them, checks them,
// prints them and documents them.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace graft {

struct ModelOptions {
  std::string base;                      // path of a directory, a .gguf file or a run folder
  std::string compute = "bfloat16";      // bfloat16 | float32
  std::string quantize_base = "none";    // none | quantized_base_names
};

struct AdapterOptions {
  std::string kind = "lora";             // lora | full | none
  std::optional<std::string> from;       // a PEFT adapter folder to start from
  int64_t rank = 32;
  double alpha = 64;
  std::string scaling = "standard";      // standard: alpha/rank | rslora: alpha/sqrt(rank)
  double dropout = 0;
  std::vector<std::string> targets = {"all-linear"};   // or module globs: "q_proj", "*.mlp.*"
  std::string quantization_aware = "none";   // none | a quantised export form, whose rounding is trained through
  std::map<std::string, int64_t> ranks;  // not of a recipe: modules of a loaded adapter with another rank than `rank`, and the same scale
};

struct DataSource {
  std::string path;                      // file (.jsonl .csv .tsv .parquet) or, for text, .md/.txt files, a folder or a glob
  std::string format;                    // messages | completion | text | labelled
  std::optional<std::string> text;       // column that holds the text (text, labelled); default "text"
  std::optional<std::string> label;      // column that holds the label (labelled); default "label"
  std::optional<std::string> prompt;     // the prompt; {column} is replaced by that column (labelled, CSV, Parquet)
  std::optional<std::string> completion; // the answer, {column} likewise; labelled: defaults to the label
  std::optional<std::string> system;     // a system message before the prompt (labelled, completion)
  double weight = 1;                     // scales the loss of these rows
};

struct DataOptions {
  std::vector<DataSource> train, validation, test;
  std::vector<DataSource> general;       // text that has nothing to do with the task: what training makes a model forget
  double validation_fraction = 0;        // of train, split by label and by hash of the normalised text
  std::string template_source = "base";  // key: template. base | path of a .jinja file
  nlohmann::ordered_json template_arguments = nlohmann::ordered_json::object();
  std::string template_date = "auto";    // auto | YYYY-MM-DD
  int64_t max_tokens = 1024;             // of one row
  std::string over_long = "error";       // error | truncate | drop
  int64_t pack_tokens = 2048;            // of one micro-batch
};

struct ObjectiveOptions {
  std::string kind = "sft";              // sft | distill
  double load_balancing = 0;             // weight of the auxiliary loss of a mixture of experts
  // distill: (1 - teacher_share) * cross-entropy + teacher_share * divergence (trainer/distillation/objective.h)
  double teacher_share = 1;
  std::string teacher_tokens = "supervised";   // supervised | all: of which the divergence is taken
  std::optional<double> minifinetuning;  // threshold: each token has a share of its own
  std::string divergence = "forward_kl"; // forward_kl | reverse_kl | jensen_shannon | skewed_forward_kl | skewed_reverse_kl | spans
  double jensen_shannon_weight = 0.5, skew = 0.1;
  double temperature = 1;
  bool times_temperature_squared = false;
  // key: on_policy: {share, every, temperature, top_p, max_new_tokens}: rows of a step whose answers the student writes
  double on_policy_share = 0;            // 0: none
  int64_t on_policy_every = 1;           // steps whose answers are written at once
  double on_policy_temperature = 1, on_policy_top_p = 1;
  int64_t on_policy_max_new_tokens = 128;
  // key: hidden_states: {weight, layers}: + weight * hidden-state loss (trainer/distillation/hidden_matching.h)
  double hidden_states_weight = 0;       // 0: none
  std::vector<std::pair<int64_t, int64_t>> hidden_states_layers;   // student's and teacher's, from 0; empty: all of the student's, evenly over the teacher's

  bool distils() const { return kind == "distill"; }
  bool by_spans() const { return distils() && divergence == "spans"; }   // of a teacher with another tokenizer
  bool matches_hidden_states() const { return distils() && hidden_states_weight > 0; }
  bool teaches_all() const { return distils() && teacher_tokens == "all"; }
};

struct TeacherOptions {
  std::string model = "none";            // none | self: the student's base without its adapter | path of a model, as ModelOptions::base
  std::optional<std::string> adapter;    // a PEFT folder; default: a run folder's own
  std::optional<std::string> demonstration;   // a JSON file of messages that stand before a row's own for the teacher alone
  std::string compute = "bfloat16";
  std::string quantize_base = "none";
  std::string signal = "online";         // online | cached | answers: the last two written by `graft teach`
  std::string entries = "drawn";         // of the cache: drawn | top
  int64_t num_entries = 50;              // key: count
  std::string rest = "outcome";          // outcome | label: what the mass beside top entries is
  // In place of a model: a completions server, which `graft teach` asks.
  std::optional<std::string> server;     // http://127.0.0.1:8080/v1
  std::optional<std::string> server_model;   // as it names it; null: the only one that it lists
  std::optional<std::string> key_env;    // environment variable that holds its key
  std::optional<std::string> licence;    // of its model
  bool allow_remote = false;
  double answer_seconds = 120;           // longest wait for an answer
  // key: answers: {temperature, top_p, max_new_tokens, keep}
  double answers_temperature = 0, answers_top_p = 1;
  int64_t answers_max_new_tokens = 256;
  std::string answers_keep = "finished"; // finished | right

  bool is_self() const { return model == "self"; }
  bool has_files() const { return !is_self() && !server; }
  bool cached() const { return signal == "cached"; }
  bool rest_is_labels() const { return cached() && entries == "top" && rest == "label"; }
  bool answers() const { return signal == "answers"; }
  bool stored() const { return cached() || answers(); }   // by `graft teach`, before training
};

struct OptimizerOptions {
  std::string kind = "adamw";
  std::optional<double> learning_rate;   // nullopt: auto
  double weight_decay = 0;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double clip = 1.0;                     // global gradient norm; 0: none
  int64_t batch_rows = 16;               // rows of one optimizer step
};

struct ScheduleOptions {
  double epochs = 1;
  std::optional<int64_t> steps;          // wins over epochs
  std::string shape = "cosine";          // cosine | linear | constant
  double warmup = 0.03;                  // below 1: share of the steps; else steps
};

struct RunOptions {
  int64_t seed = 0;
  std::string out;                       // run folder
  std::optional<std::string> cache;      // token stores; default: beside the run
  std::string device = "auto";           // auto | cpu | cuda:N
  int64_t threads = 0;                   // 0: auto
  std::string recompute = "auto";        // auto | none | layer
  bool deterministic = true;
  bool shard_base = false;               // the frozen base is spread over the processes
  int64_t checkpoint_every = 50, evaluate_every = 100;
  int64_t keep_last = 2, keep_best = 1;  // keys: keep: {last, best}
  std::string early_stopping_metric = "loss";       // key: early_stopping: {metric, patience}
  std::optional<int64_t> early_stopping_patience;   // evaluations without improvement
};

struct ExportOptions {
  std::string format;                    // peft | safetensors | gguf:F16 | gguf-lora | ...
  double max_mean_kl = 0.002;            // key: verify: {max_mean_kl}
  std::optional<double> min_share_of_gain;   // key: verify: {min_share_of_gain}
  std::string rounding = "nearest";      // nearest | error_feedback
  std::string importance = "none";       // none | training_rows | an importance matrix's file
  bool verify = true;                    // key: verify: none switches the certificate off (said in the plan)
};

struct ReportOptions {
  bool examples = false;
  std::optional<std::string> compare;    // a run folder
  std::optional<double> cost_per_hour;   // of the machine, in any currency
};

struct Recipe {
  std::vector<std::string> accept_licence;   // identifiers of licences that somebody read and accepted (models/families/licences.md)
  ModelOptions model;
  AdapterOptions adapter;
  DataOptions data;
  ObjectiveOptions objective;
  TeacherOptions teacher;
  OptimizerOptions optimizer;
  ScheduleOptions schedule;
  RunOptions run;
  std::vector<ExportOptions> exports;    // key: export
  ReportOptions report;

  bool follows_teacher() const { return objective.distils() && !teacher.answers(); }   // token by token
};

// Reads a recipe; `overrides` are "a.b.0.c=value" (the command line's --set), applied before the check. Relative paths are relative to the
// recipe's folder, except run.out and run.cache, which are relative to the working directory, as are all paths of an override; `~/` is the
// home folder. Afterwards a path is relative to the working directory when it lies below it, else absolute.
// Throws UserError with file:line:column, what was expected and got, and the nearest known key; all problems of the file (20 are shown).
Recipe load_recipe(const std::filesystem::path& path, const std::vector<std::string>& overrides);
// The same from text; `name` is shown in errors, `folder` is what its relative paths are relative to.
Recipe parse_recipe(const std::string& text, const std::string& name, const std::filesystem::path& folder,
                    const std::vector<std::string>& overrides = {});

// Every key, defaults included. Paths are written relative to `folder`, the folder that will hold the text (empty: the working directory), or
// as ~/...; never absolute. load_recipe(folder / "recipe.yaml", {}) gives the same recipe.
std::string resolved_yaml(const Recipe& recipe, const std::filesystem::path& folder = {});
nlohmann::ordered_json resolved_json(const Recipe& recipe, const std::filesystem::path& folder = {});
// The reference documentation of every key: Markdown (docs/recipes.md).
std::string recipe_documentation();

}  // namespace graft
