#include "trainer/recipe/recipe_schema.h"

#include "checkpoints/codecs/gguf_types.h"
#include "checkpoints/codecs/hub_layouts.h"
#include "checkpoints/quantized_base.h"

namespace graft {
namespace {

bool is_digits(const std::string& text) { return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos; }

bool is_device(const std::string& text) {
  return text == "auto" || text == "cpu" || (text.starts_with("cuda:") && is_digits(text.substr(5)) && text.size() <= 8);
}

bool is_template_date(const std::string& text) {
  if (text == "auto") return true;
  if (text.size() != 10 || text[4] != '-' || text[7] != '-') return false;
  const std::string year = text.substr(0, 4), month = text.substr(5, 2), day = text.substr(8);
  if (!is_digits(year) || !is_digits(month) || !is_digits(day)) return false;
  const int y = std::stoi(year), m = std::stoi(month), d = std::stoi(day);
  const bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
  const int days[] = {31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return y >= 1 && m >= 1 && m <= 12 && d >= 1 && d <= days[m - 1];
}

std::vector<std::string> export_formats() {
  std::vector<std::string> formats = {"peft", "peft:per-expert", "safetensors", "gguf-lora"};
  for (const auto name : gguf_format_names()) formats.push_back("gguf:" + std::string(name));
  for (auto& name : hub_form_names()) formats.push_back(std::move(name));
  formats.push_back("mxfp4");
  return formats;
}
const std::vector<std::string> kExportFormats = export_formats();

std::vector<std::string> base_forms() {
  std::vector<std::string> forms = {"none"};
  for (auto& name : quantized_base_names()) forms.push_back(std::move(name));
  return forms;
}
const std::vector<std::string> kBaseForms = base_forms();

// Merged forms that round to blocks: those that `adapter.quantization_aware` may name.
std::vector<std::string> rounded_formats() {
  std::vector<std::string> formats = {"none"};
  for (const auto name : gguf_format_names()) {
    const auto format = *gguf_format_from_name(name);
    if (gguf_takes_importance(format) || format == GgufFormat::kQ8_0) formats.push_back("gguf:" + std::string(name));
  }
  for (auto& name : hub_form_names())
    if (rounds_rows_alone(hub_form_from_name(name)->layout)) formats.push_back(std::move(name));
  return formats;
}

Table<ModelOptions> model_table() {
  using T = ModelOptions;
  return {
      required(path("base", &T::base, "The model to fine-tune: a directory in Hugging Face layout, a .gguf file, or a run folder.")),
      choice("compute", &T::compute, {"bfloat16", "float32"},
             "Type of matmul operands and of the residual stream. Sums, norm statistics, softmax, logits and loss are float32 in both; "
             "float32 is for comparisons and tests."),
      choice("quantize_base", &T::quantize_base, kBaseForms,
             "Quantises the linear layers of the frozen base when it is loaded; the adapter is trained against the quantised weights, and exports merge into them. "
             "A base that comes quantised stays in its own blocks in any case."),
  };
}

// One text, or a list of them.
template <typename Object>
Field<Object> texts(const char* key, const char* what, std::vector<std::string> Object::* member, bool may_be_empty, const char* doc) {
  return {key, "text or list of texts", doc, false,
          [=](Reader& reader, const YamlValue& value, Object& object) {
            if (value.kind == YamlValue::Kind::kScalar) {
              if (const auto text = reader.text(value)) object.*member = {*text};
              return;
            }
            if (value.kind != YamlValue::Kind::kList || (value.items.empty() && !may_be_empty)) {
              reader.expected(value, what);
              return;
            }
            (object.*member).clear();
            for (size_t i = 0; i < value.items.size(); ++i) {
              Reader::Inside inside(reader, std::to_string(i));
              if (const auto text = reader.text(value.items[i])) (object.*member).push_back(*text);
            }
          },
          [=](const Object& object, const PathWriter&) { return (object.*member).size() == 1 ? Json((object.*member)[0]) : Json(object.*member); }};
}

Table<AdapterOptions> adapter_table() {
  using T = AdapterOptions;
  return {
      choice("kind", &T::kind, {"lora", "full", "none"},
             "lora trains low-rank adapters on a frozen base. full trains the linear layers' matrices themselves, in float32 (24 bytes a weight beside the base: value, gradients, "
             "moments); embedding, head and norms stay frozen, experts cannot be trained so; rank, alpha and dropout have no meaning then, and exports are merged forms."),
      optional_path("from", &T::from, "A PEFT adapter folder to start from instead of B = 0."),
      integer("rank", &T::rank, {.low = 1, .high = 65536}, "Rank r of A and B: 16 to 64 for a task, 256 beyond 100,000 rows."),
      number("alpha", &T::alpha, above(0), "Numerator of the scale; 2 x rank is the usual choice."),
      choice("scaling", &T::scaling, {"standard", "rslora"}, "Scale of the adapter: alpha/rank, or alpha/sqrt(rank) (rsLoRA)."),
      number("dropout", &T::dropout, from_to_below(0, 1), "Share of the adapter's inputs set to zero in training."),
      texts("targets", "all-linear, a module glob or a list of globs", &T::targets, false,
            "Which linear layers get an adapter: all-linear (every one but head and embeddings, as PEFT), or globs of module names such as "
            "q_proj or *.mlp.*. A target that matches nothing is an error."),
      choice("quantization_aware", &T::quantization_aware, rounded_formats(),
             "Trains through the rounding of this export form: every step computes with the adapted matrices as that export will hold them, and the gradient goes "
             "straight through. Keeps a fine-tune in 4 bits, also on the base's own grid. Needs dropout 0; what was trained is then the rounded model, for all exports."),
  };
}

Table<DataSource> source_table() {
  using T = DataSource;
  return {
      required(path("path", &T::path, "A .jsonl, .csv, .tsv or .parquet file; for format text also .md and .txt files, a folder of them or a glob.")),
      required(choice("format", &T::format, {"messages", "completion", "text", "labelled", "prompts"},
                      "messages: conversations; completion: prompt and answer; text: documents, every token supervised (continued "
                      "pretraining); labelled: a text and its label, answered with the label; prompts: messages without an answer, a "
                      "prompt or a text, to which in distillation the student (objective.on_policy) or the teacher (teacher.signal: answers) writes the answer.")),
      optional_text("text", "column", &T::text, "Column that holds the text (labelled, text, prompts). Default: text."),
      optional_text("label", "column", &T::label, "Column that holds the label (labelled). Default: label."),
      optional_text("prompt", "text with {column}", &T::prompt,
                    "The user's turn; {column} is replaced by that column, {{ and }} are braces. labelled: default is the text alone; "
                    "completion: default is the column prompt."),
      optional_text("completion", "text with {column}", &T::completion, "The answer, likewise. Default: the label, or the column completion."),
      optional_text("system", "text", &T::system, "A system message before the prompt (labelled, completion)."),
      number("weight", &T::weight, above(0), "Scales the loss of these rows; does not repeat them."),
  };
}

Field<DataOptions> template_arguments_field() {
  return {"template_arguments", "mapping", "Variables given to the chat template, for example enable_thinking: false.", false,
          [](Reader& reader, const YamlValue& value, DataOptions& data) {
            if (reader.expect_map(value)) data.template_arguments = yaml_to_json(value);
          },
          [](const DataOptions& data, const PathWriter&) { return data.template_arguments; }};
}

Table<DataOptions> data_table() {
  using T = DataOptions;
  return {
      required(list("train", &T::train, source_table(), true, "Sources to train on.")),
      list("validation", &T::validation, source_table(), false, "Sources of the validation loss, in the form of data.train."),
      list("test", &T::test, source_table(), false,
           "Scored once after the last step, in the form of data.train; never used to choose a checkpoint."),
      list("general", &T::general, source_table(), false,
           "Text that has nothing to do with the task, never trained on: after the last step the report says what was forgotten there (perplexity, KL from the base)."),
      number("validation_fraction", &T::validation_fraction, from_to_below(0, 1),
             "Share of train kept for validation, split by label and by hash of the normalised text (so that equal texts stay together)."),
      path("template", &T::template_source, "The chat template: the base's own, or a .jinja file.", false, {"base"}),
      template_arguments_field(),
      text("template_date", "auto or YYYY-MM-DD", &T::template_date, is_template_date,
           "The date that a template's strftime_now sees; auto is the day of the plan and is stored in the run."),
      integer("max_tokens", &T::max_tokens, {.low = 2, .high = 1 << 24}, "Longest row, in tokens."),
      choice("over_long", &T::over_long, {"error", "truncate", "drop"}, "What to do with a longer row; each is listed in the plan."),
      integer("pack_tokens", &T::pack_tokens, {.low = 1, .high = 1 << 26},
              "Tokens of one packed micro-batch (a longer row stands alone). Bounds memory; changes nothing else but rounding."),
  };
}

Field<ObjectiveOptions> matched_layers_field() {
  return {"layers", "even or list of [student, teacher]",
          "Which layer's state is matched to which, counted from 0 as in tensors' names. even: all S of the student's, layer i to round((i + 1) T / S) - 1 of the teacher's T; plan prints them.",
          false,
          [](Reader& reader, const YamlValue& value, ObjectiveOptions& objective) {
            objective.hidden_states_layers.clear();
            if (is_word(value, "even")) return;
            if (value.kind != YamlValue::Kind::kList || value.items.empty()) return reader.expected(value, "even or a list such as [[1, 3], [3, 7]]");
            for (size_t i = 0; i < value.items.size(); ++i) {
              Reader::Inside inside(reader, std::to_string(i));
              const auto& pair = value.items[i];
              if (pair.kind != YamlValue::Kind::kList || pair.items.size() != 2) {
                reader.expected(pair, "a layer of the student and one of the teacher, such as [1, 3]");
                continue;
              }
              const auto student = reader.integer(pair.items[0], {.low = 0, .high = 65535}), teacher = reader.integer(pair.items[1], {.low = 0, .high = 65535});
              if (student && teacher) objective.hidden_states_layers.emplace_back(*student, *teacher);
            }
          },
          [](const ObjectiveOptions& objective, const PathWriter&) { return objective.hidden_states_layers.empty() ? Json("even") : Json(objective.hidden_states_layers); }};
}

Table<ObjectiveOptions> objective_table() {
  using T = ObjectiveOptions;
  return {
      choice("kind", &T::kind, {"sft", "distill"},
             "sft: cross-entropy on the supervised tokens. distill: towards the teacher's distribution there (docs/distillation.md); plan prints the formula."),
      number("teacher_share", &T::teacher_share, {.low = 0, .high = 1, .above_low = true},
             "distill: loss = (1 - teacher_share) x cross-entropy + teacher_share x divergence, each the mean over its tokens."),
      choice("teacher_tokens", &T::teacher_tokens, {"supervised", "all"},
             "distill: the tokens on which the teacher is followed. all: prompts' too, of which a student that was cut from a larger model learns to read again; "
             "cross-entropy stays on the supervised tokens."),
      number_or("minifinetuning", "null", &T::minifinetuning, {.low = 0, .high = 1, .below_high = true},
                "distill: a threshold t (0.2 in the paper): each token has a share s of its own in place of teacher_share, such that in s x teacher + (1 - s) x label the label leads the teacher's "
                "likeliest token by t, or where it is that token gains t: rows are learnt, and all else stays as the teacher has it. With an online teacher and forward_kl."),
      choice("divergence", &T::divergence, {"forward_kl", "reverse_kl", "jensen_shannon", "skewed_forward_kl", "skewed_reverse_kl", "spans"},
             "distill: forward_kl KL(teacher || student); reverse_kl KL(student || teacher); jensen_shannon b KL(teacher || M) + (1 - b) KL(student || M), "
             "M = b teacher + (1 - b) student; skewed_forward_kl KL(teacher || skew teacher + (1 - skew) student), skewed_reverse_kl KL(student || skew student + (1 - skew) teacher). spans: for a teacher with another tokenizer and template, of how likely both find pieces of the answer's text."),
      number("jensen_shannon_weight", &T::jensen_shannon_weight, {.low = 0, .high = 1, .above_low = true, .below_high = true}, "distill: b of jensen_shannon."),
      number("skew", &T::skew, {.low = 0, .high = 1, .above_low = true, .below_high = true}, "distill: of the skewed divergences, 0.1 in DistiLLM."),
      number("temperature", &T::temperature, above(0), "distill: logits of both are divided by it in the divergence."),
      boolean("times_temperature_squared", &T::times_temperature_squared, "distill: multiplies the divergence by temperature squared (Hinton 2015)."),
      group<T>("on_policy",
               {number("share", &T::on_policy_share, {.low = 0, .high = 1},
                       "The share of each step's rows to whose prompts the student writes the answer itself, and is taught on it (no cross-entropy there); rows of format "
                       "prompts always are. 0: none."),
                integer("every", &T::on_policy_every, {.low = 1, .high = 1000}, "Steps whose answers are written at once, by the student as it is then."),
                number("temperature", &T::on_policy_temperature, at_least(0), "Of sampling; 0: greedy."),
                number("top_p", &T::on_policy_top_p, {.low = 0, .high = 1, .above_low = true}, "Of sampling; 1: all tokens."),
                integer("max_new_tokens", &T::on_policy_max_new_tokens, {.low = 1, .high = 1 << 20}, "The longest answer.")},
               "distill with an online teacher: on-policy distillation."),
      group<T>("hidden_states",
               {number("weight", &T::hidden_states_weight, at_least(0),
                       "Of the hidden-state loss, which is added: how far the student's residual stream after some of its layers is from the teacher's, through a learnt projection where "
                       "their widths differ (docs/distillation.md). 0: none."),
                matched_layers_field()},
               "distill with an online teacher of the same tokenizer: hidden states are matched too."),
      number("load_balancing", &T::load_balancing, at_least(0),
             "Weight of the auxiliary load-balancing loss of a mixture of experts (Switch Transformer, as transformers' router_aux_loss_coef; 0.001 to 0.02 "
             "there). Routers stay frozen: it moves the layers before them. 0: off."),
  };
}

Table<TeacherOptions> teacher_table() {
  using T = TeacherOptions;
  return {
      path("model", &T::model,
           "Who is learnt from: a model as in model.base (of a run folder: with its adapter), or self: the student's own base, its adapter switched off. Needs the "
           "student's tokenizer.", false, {"none", "self"}),
      optional_path("adapter", &T::adapter, "A PEFT adapter folder on the teacher; null: a run folder's own."),
      optional_path("demonstration", &T::demonstration,
                    "A JSON file {\"messages\": [...]} that the teacher alone reads before each row's messages: instructions, worked examples. The student learns to answer as if it had "
                    "read them. A system message in it takes the place of the row's."),
      choice("compute", &T::compute, {"bfloat16", "float32"}, "As model.compute."),
      choice("quantize_base", &T::quantize_base, kBaseForms, "As model.quantize_base."),
      choice("signal", &T::signal, {"online", "cached", "answers"},
             "online: the teacher lies beside the student and computes every step. cached: `graft teach RECIPE` has written what it says of the rows, once; training never loads it. "
             "answers: it has written answers to the rows' prompts, which the student learns by cross-entropy in place of their own (sequence-level); the tokenizers may differ."),
      choice("entries", &T::entries, {"drawn", "top"},
             "cached, of each token: drawn counts of draws from the teacher's distribution, an unbiased target of forward_kl; top the likeliest tokens and the mass of the rest."),
      integer("count", &T::num_entries, {.low = 1, .high = 65535}, "cached: how many draws, or likeliest tokens."),
      choice("rest", &T::rest, {"outcome", "label"},
             "cached, entries top: what the mass beside the entries is. outcome: of one outcome more, whose tokens share it as the student has them. label: of the row's own token (where one "
             "is supervised)."),
      optional_text("server", "null or URL", &T::server,
                    "In place of teacher.model: an OpenAI-compatible completions server with a model of the student's tokenizer, such as http://127.0.0.1:8080/v1, which `graft teach` asks "
                    "(docs/distillation.md). With signal cached and entries top. Holds no key."),
      optional_text("server_model", "null or text", &T::server_model, "The model's name there; null: the only one that the server lists."),
      optional_text("key_env", "null or text", &T::key_env, "Name of the environment variable that holds the server's key. The key itself stands in no file."),
      optional_text("licence", "null or text", &T::licence, "The licence of the server's model, which graft cannot read: required with teacher.server, and checked as a model's own."),
      boolean("allow_remote", &T::allow_remote, "Lets rows go to a server on another machine."),
      number("answer_seconds", &T::answer_seconds, above(0), "Longest wait for an answer of the server."),
      group<T>("answers",
               {number("temperature", &T::answers_temperature, at_least(0), "Of sampling; 0: greedy."),
                number("top_p", &T::answers_top_p, {.low = 0, .high = 1, .above_low = true}, "Of sampling; 1: all tokens."),
                integer("max_new_tokens", &T::answers_max_new_tokens, {.low = 1, .high = 1 << 20}, "The longest answer; one that does not end by then is not learnt."),
                choice("keep", &T::answers_keep, {"finished", "right"}, "finished: all answers that ended by themselves. right: of these the ones that are the row's own answer.")},
               "signal answers: how the teacher writes them, and which are kept."),
  };
}

Table<OptimizerOptions> optimizer_table() {
  using T = OptimizerOptions;
  return {
      choice("kind", &T::kind, {"adamw"}, "AdamW (Loshchilov and Hutter 2019), float32 moments."),
      number_or("learning_rate", "auto", &T::learning_rate, above(0),
                "Peak learning rate. auto: 5e-5 x 10 x (2000/hidden)^e with e = 0.781 for Llama and 0.0775 for Qwen (LoRA Without Regret); "
                "another family must give a number. adapter.kind full: a tenth of it."),
      number("weight_decay", &T::weight_decay, at_least(0), "Decoupled weight decay."),
      number("beta1", &T::beta1, from_to_below(0, 1), "Decay of the first moment."),
      number("beta2", &T::beta2, from_to_below(0, 1), "Decay of the second moment."),
      number("epsilon", &T::epsilon, above(0), "Added to the root of the second moment."),
      number("clip", &T::clip, at_least(0), "Largest global gradient norm; 0: none."),
      integer("batch_rows", &T::batch_rows, {.low = 1, .high = 1 << 24},
              "Rows of one optimizer step, packed into as many micro-batches as pack_tokens needs; LoRA learns best below 32."),
  };
}

Table<ScheduleOptions> schedule_table() {
  using T = ScheduleOptions;
  return {
      number("epochs", &T::epochs, above(0), "Passes over train; fractions are allowed."),
      integer_or("steps", "null", &T::steps, {.low = 1, .high = 1e12}, "Optimizer steps; wins over epochs."),
      choice("shape", &T::shape, {"cosine", "linear", "constant"},
             "Learning rate after the warm-up: falls to 0 along a half cosine or a line, or stays."),
      number("warmup", &T::warmup, at_least(0), "Linear warm-up: below 1 a share of all steps, else a number of steps."),
  };
}

Field<RunOptions> threads_field() {
  return {"threads", "auto or integer of at least 1",
          "CPU threads; auto: the cores this process may use. Stored in the run: another count gives other rounding and is refused on resume.", false,
          [](Reader& reader, const YamlValue& value, RunOptions& run) {
            if (is_word(value, "auto")) run.threads = 0;
            else if (const auto read = reader.integer(value, {.low = 1, .high = 4096}, "auto or ")) run.threads = *read;
          },
          [](const RunOptions& run, const PathWriter&) { return run.threads == 0 ? Json("auto") : Json(run.threads); }};
}

Table<RunOptions> run_table() {
  using T = RunOptions;
  return {
      integer("seed", &T::seed, {.low = 0, .high = 9e15}, "Seed of row order, adapter initialisation and dropout."),
      required(path("out", &T::out, "The run folder; relative to the working directory.", true)),
      optional_path("cache", &T::cache, "Folder of token stores, relative to the working directory; null: beside the run.", true),
      text("device", "auto, cpu or cuda:N", &T::device, is_device,
           "auto: the visible GPU (sm_80 or newer, driver for CUDA 13) with most free memory, else the CPU; plan says which and why. N counts visible GPUs. "
           "The GPU trains; test scores, exports and certificates are computed on the CPU. Not run on a GPU yet: its operations are tested on the CPU."),
      threads_field(),
      choice("recompute", &T::recompute, {"auto", "none", "layer"},
             "layer recomputes each layer's activations in the backward pass; none keeps them; auto: none where memory allows."),
      boolean("deterministic", &T::deterministic, "Same recipe, same bytes on the same machine."),
      boolean("shard_base", &T::shard_base,
              "Several processes: each keeps its share of the frozen base, and a layer is gathered before it is used; for bases larger than one GPU. The same bytes."),
      integer("checkpoint_every", &T::checkpoint_every, {.low = 1, .high = 1e12}, "Steps between checkpoints: the most that a kill loses."),
      integer("evaluate_every", &T::evaluate_every, {.low = 1, .high = 1e12}, "Steps between validation losses."),
      group<T>("keep",
               {integer("last", &T::keep_last, {.low = 1, .high = 1e9}, "Newest checkpoints kept."),
                integer("best", &T::keep_best, {.low = 0, .high = 1e9}, "Checkpoints with the best validation metric kept besides.")},
               "Which checkpoints stay."),
      group<T>("early_stopping",
               {choice("metric", &T::early_stopping_metric, {"loss"}, "The validation metric."),
                integer_or("patience", "null", &T::early_stopping_patience, at_least(1),
                           "Stops after this many evaluations without improvement; null: never.")},
               "Ends a run that no longer improves."),
  };
}

Field<ExportOptions> verify_field() {
  return {"verify", "none or mapping", "The certificate of this export; none switches it off, and the plan says so.", false,
          [](Reader& reader, const YamlValue& value, ExportOptions& options) {
            if (is_word(value, "none")) {
              options.verify = false;
            } else if (value.kind != YamlValue::Kind::kMap) {
              reader.expected(value, "none or a mapping such as {max_mean_kl: 0.002}");
            } else {
              static const Table<ExportOptions> kThreshold = {number("max_mean_kl", &ExportOptions::max_mean_kl, above(0), ""),
                                                              number_or("min_share_of_gain", "null", &ExportOptions::min_share_of_gain, above(0), "")};
              read_table(reader, value, options, kThreshold);
            }
          },
          [](const ExportOptions& options, const PathWriter&) {
            if (!options.verify) return Json("none");
            Json thresholds = {{"max_mean_kl", options.max_mean_kl}};
            if (options.min_share_of_gain) thresholds["min_share_of_gain"] = *options.min_share_of_gain;
            return thresholds;
          },
          [] {
            return std::vector<DocumentedKey>{
                {"max_mean_kl", "number above 0", fmt::format("{}", ExportOptions{}.max_mean_kl),
                 "Largest mean KL divergence (nats) of the exported from the trained model over supervised positions."},
                {"min_share_of_gain", "null or number above 0", "null",
                 "Smallest share of what training gained that the export may keep, (exported - base) / (trained - base): by mean loss and, of labelled rows, by task score."}};
          }};
}

Field<ExportOptions> importance_field() {
  return {"importance", "none, training_rows or path",
          "For quantised GGUF forms: how much each column of a weight counts. training_rows: by the trained model's activations over its training rows, kept as "
          "exports/importance.gguf; a path: an importance matrix of llama-imatrix (GGUF).", false,
          [](Reader& reader, const YamlValue& value, ExportOptions& options) {
            if (is_word(value, "none") || is_word(value, "training_rows")) options.importance = value.text;
            else if (const auto read = reader.path(value, false)) options.importance = *read;
          },
          [](const ExportOptions& options, const PathWriter& write_path) {
            const bool is_path = options.importance != "none" && options.importance != "training_rows";
            return is_path ? write_path(options.importance, false) : Json(options.importance);
          }};
}

Field<Recipe> export_field() {
  const Table<ExportOptions> table = {
      required(choice("format", &ExportOptions::format, kExportFormats,
                      "peft: the adapter; peft:per-expert: with a module for each expert, for vLLM; safetensors: merged, Hugging Face layout; gguf:TYPE: merged, for llama.cpp; "
                      "gguf-lora: the adapter for llama.cpp, beside the base's own file.")),
      choice("rounding", &ExportOptions::rounding, {"nearest", "error_feedback"},
             "For forms below 8 bits. error_feedback: what rounding some columns of a matrix does to its outputs, over the training rows, is made up for in the columns that "
             "are rounded after them (GPTQ); minutes instead of seconds."),
      importance_field(), verify_field()};
  Field<Recipe> field = list("export", &Recipe::exports, table, true,
                             "Written and verified after the last step. An entry may be a format alone: \"gguf:F16\".");
  field.type = "list of formats or mappings";
  field.read = [table](Reader& reader, const YamlValue& value, Recipe& recipe) {
    if (!reader.expect_list(value)) return;
    recipe.exports.clear();
    for (size_t i = 0; i < value.items.size(); ++i) {
      Reader::Inside inside(reader, std::to_string(i));
      ExportOptions& entry = recipe.exports.emplace_back();
      if (value.items[i].kind != YamlValue::Kind::kScalar) read_table(reader, value.items[i], entry, table);
      else if (const auto format = reader.choice(value.items[i], kExportFormats)) entry.format = *format;
    }
  };
  return field;
}

}  // namespace

const Table<Recipe>& recipe_table() {
  using T = Recipe;
  static const Table<Recipe> kTable = {
      required(section("model", &T::model, model_table(), "The base model.")),
      section("adapter", &T::adapter, adapter_table(), "What is trained."),
      required(section("data", &T::data, data_table(), "Rows and how they become tokens.")),
      section("objective", &T::objective, objective_table(), "What is minimised."),
      section("teacher", &T::teacher, teacher_table(), "Who is learnt from, with objective.kind distill."),
      section("optimizer", &T::optimizer, optimizer_table(), "How it is minimised."),
      section("schedule", &T::schedule, schedule_table(), "How long, and the learning rate over time."),
      required(section("run", &T::run, run_table(), "Where and how the run goes.")),
      export_field(),
      section("report", &T::report,
              {boolean("examples", &ReportOptions::examples, "Shows users' rows and answers in report.html; without it no artefact holds a row."),
               optional_path("compare", &ReportOptions::compare,
                             "The folder of another run: its answers to the same test rows stand beside this one's, with a paired bootstrap interval of the difference. Relative to "
                             "the working directory.", true),
               number_or("cost_per_hour", "null", &ReportOptions::cost_per_hour, above(0),
                         "What an hour of this machine costs: the report then says what a million tokens of prompts cost, at the speed of scoring the test rows.")},
              "The report."),
      texts("accept_licence", "a licence's identifier or a list of them", &T::accept_licence, true,
            "Licences that you have read and accept, by identifier: plan refuses a base whose licence is unknown, not for commercial use or limited "
            "to some countries without it (trainer/models/families/licences.md)."),
  };
  return kTable;
}

}  // namespace graft
