#include "trainer/runs/prepared_run.h"

#include <algorithm>
#include <cmath>
#include <ctime>

#include <ATen/Parallel.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "checkpoints/hash.h"
#include "checkpoints/tensor_source.h"
#include "data/rows/packing.h"
#include "kernels/attention/key_bits.h"
#include "kernels/common/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/models/packed_batch.h"
#include "trainer/recipe/learning_rate.h"
#include "trainer/report/machine_info.h"
#include "trainer/runs/device_memory.h"
#include "trainer/runs/recipe_inputs.h"
#include "trainer/runs/student_answers.h"
#include "trainer/runs/teacher_answers.h"
#include "trainer/runs/teacher_inputs.h"

namespace graft {

namespace fs = std::filesystem;

namespace {

std::string date_text(int64_t time) {
  const std::time_t seconds = time;
  char text[16];
  std::strftime(text, sizeof text, "%Y-%m-%d", gmtime(&seconds));
  return text;
}

void take_device(PreparedRun& run) {
  const auto& launch = run.group->launch();
  run.device = prepare_device(run.recipe.run.device, {launch.local_rank, launch.local_size});
  if (run.recipe.run.shard_base && run.group->alone()) run.notes.push_back("shard_base: takes effect with several processes (docs/scale.md)");
  if (!run.device.note.empty()) run.notes.push_back(run.device.note);
}

// What ShardedBase cannot let go of: memory of the source's own (checkpoints/mxfp4_tensors.h).
void note_whole_weights(PreparedRun& run) {
  const auto& weights = run.decoder->weights();
  const bool joined = fs::is_directory(run.files.base) && std::any_of(weights.begin(), weights.end(), [](const auto& weight) { return weight.tensor->type == TensorType::kMXFP4; });
  if (joined && run.recipe.run.shard_base) run.notes.push_back("shard_base: the experts' MXFP4 blocks stay whole in every process; those of a GGUF file do not (docs/scale.md)");
}

void choose_recompute(PreparedRun& run) {
  if (run.recipe.run.recompute != "auto") {
    run.recompute = run.recipe.run.recompute == "layer" ? Recompute::kLayer : Recompute::kNone;
    return;
  }
  const bool on_gpu = run.device.gpu.has_value();
  const auto kept = on_gpu ? estimate_device_memory(run, Recompute::kNone).total() : estimate_memory(run, Recompute::kNone).total();
  const auto available = on_gpu ? available_bytes(*run.device.gpu) : machine_info().memory_bytes;
  run.recompute = kept > available / 2 ? Recompute::kLayer : Recompute::kNone;
  run.notes.push_back(fmt::format("recompute {}: keeping all activations needs {:.2f} GiB of {:.1f} GiB", run.recompute == Recompute::kLayer ? "layer" : "none",
                                  kept / 1073741824.0, available / 1073741824.0));
}

void round_adapted_weights(PreparedRun& run) {
  const auto& form = run.recipe.adapter.quantization_aware;
  run.served = std::make_unique<ServedWeights>(*run.decoder, *run.adapters, run.files.base, form);
  run.notes.push_back(fmt::format("quantization_aware: every step computes with the {} adapted matrices as {} will hold them ({}; {:.1f} MiB beside the base), made anew after each update; "
                                  "the gradient goes straight through. What is trained, and what certificates compare with, is that rounded model",
                                  run.adapters->adapters().size(), form, run.served->describe(), static_cast<double>(run.served->num_bytes()) / 1048576.0));
  const auto& exports = run.recipe.exports;
  if (std::none_of(exports.begin(), exports.end(), [&](const ExportOptions& wanted) { return wanted.format == form; })) {
    run.notes.push_back(fmt::format("quantization_aware: {} is not among the exports; other forms hold other weights than those that are trained", form));
  }
}

}  // namespace

void PreparedRun::set_device(c10::Device where) {
  if (where.is_cuda()) c10::impl::VirtualGuardImpl(where.type()).setDevice(where);   // or another GPU might get a context too
  decoder->set_device(where);
  adapters->set_device(where);
  if (teacher) teacher->set_device(where);
  if (span_teacher) span_teacher->set_device(where);
  adapters_changed();
}

void PreparedRun::start_on_device() {
  const auto where = device.device();
  if (where.is_cuda()) c10::impl::VirtualGuardImpl(where.type()).setDevice(where);
  group->use_device(where);
  if (recipe.run.shard_base && !group->alone()) sharded = std::make_unique<ShardedBase>(*decoder, *group, where);
  set_device(where);
}

void PreparedRun::return_to_cpu() {
  if (sharded) sharded->restore();
  sharded.reset();
  set_device(c10::kCPU);
  group->use_device(c10::kCPU);
}

std::vector<int64_t> PreparedRun::sequences_of_step(int64_t step) const {
  return rows_of_step(dataset.train.num_sequences(), recipe.optimizer.batch_rows, static_cast<uint64_t>(recipe.run.seed), step);
}

std::vector<std::vector<int64_t>> PreparedRun::micro_batches(const std::vector<int64_t>& sequences) const {
  return pack_rows(sequences, dataset.train.lengths, recipe.data.pack_tokens);
}

PreparedRun::Work PreparedRun::work_of(const std::vector<TokenSpan>& rows, std::optional<int64_t> loss_buffer_bytes) const {
  Work work;
  for (const auto& row : rows) work.tokens += static_cast<int64_t>(row.ids.size());
  work.head_blocks = cross_entropy_blocks(count_taught(rows), decoder->spec().vocab_size, loss_buffer_bytes.value_or(default_loss_buffer_bytes(device.device().is_cpu())));
  return work;
}

Batch PreparedRun::batch_of(const DatasetSplit& split, const std::vector<int64_t>& sequences, uint64_t dropout_seed) const {
  return batch_of(split.spans(sequences), sequences, dropout_seed);
}

Batch PreparedRun::batch_of(const std::vector<TokenSpan>& rows, const std::vector<int64_t>& sequences, uint64_t dropout_seed) const {
  auto batch = packed_batch(rows);
  batch.teaches_all = recipe.objective.teaches_all();
  if (dropout_seed != 0) {
    batch.dropout_seed = dropout_seed;
    for (size_t d = 0; d < sequences.size(); ++d) {
      for (int64_t position = 0; position < static_cast<int64_t>(rows[d].ids.size()); ++position) {
        batch.row_keys_N.push_back((sequences[d] << 24) + position);
      }
    }
  }
  return batch;
}

std::vector<uint8_t> PreparedRun::taught_mask(const TokenSpan& row) const {
  if (recipe.objective.teaches_all()) return std::vector<uint8_t>(row.ids.size(), 1);
  return {row.supervised.begin(), row.supervised.end()};
}

int64_t PreparedRun::count_taught(const std::vector<TokenSpan>& rows) const {
  int64_t count = 0;
  for (const auto& row : rows) count += count_targets(taught_mask(row));
  return count;
}

Batch PreparedRun::teacher_batch(const std::vector<TokenSpan>& rows, const std::vector<const Row*>& sources, const Batch& batch, bool on_policy) const {
  return demonstration ? demonstrated_batch(context, *demonstration, rows, sources, on_policy) : batch;
}

std::optional<TeacherSignals> PreparedRun::teacher_signals(const std::vector<TokenSpan>& rows, const std::vector<const Row*>& sources, const Batch& batch, bool on_policy) const {
  if (span_teacher) return span_teacher->signals(context, rows, sources);
  if (teacher && !recipe.teacher.stored()) return teacher->signals(teacher_batch(rows, sources, batch, on_policy));
  if (!teacher_store || !recipe.teacher.cached()) return std::nullopt;
  TeacherSignals signals;
  signals.temperature = recipe.objective.temperature;
  for (const auto& row : rows) {
    const auto mask = taught_mask(row);
    teacher_store->read(taught_row_hash(row.ids, mask), count_targets(mask), signals.entries);
  }
  return signals;
}

// Rows that the student can answer, where it can.
void check_on_policy(PreparedRun& run) {
  if (run.recipe.objective.on_policy_share == 0) return;
  if (run.device.gpu) fail("recipe", "expected run.device cpu with objective.on_policy, got {} — answers are decoded on the CPU only", run.device.name());
  for (const auto& row : run.dataset.train.rows) {
    if (row.kind == RowKind::kText) fail("recipe", "expected rows with a prompt with objective.on_policy, got one of format text ({}) — leave it out, or set objective.on_policy.share: 0", row_place(row));
  }
  run.notes.push_back(fmt::format("on policy: {} of the first step's rows are answered by the student, at most {} tokens each; how long that takes depends on its answers, and is not in the plan's time",
                                  on_policy_sequences(run, 0).size(), run.recipe.objective.on_policy_max_new_tokens));
}

PreparedRun prepare_run(const Recipe& recipe, const PrepareOptions& options) {
  PreparedRun run;
  run.group = options.group;
  run.recipe = recipe;
  run.threads = recipe.run.threads > 0 ? recipe.run.threads : options.threads > 0 ? options.threads : machine_info().cores;
  at::set_num_threads(static_cast<int>(run.threads));
  take_device(run);
  run.files = find_model(recipe.model.base);
  if (run.files.run) fail("recipe", "expected model.base to be a model, got the run folder {} — name its base, and the run's adapter under adapter.from", recipe.model.base);
  if (fs::is_directory(run.files.base)) {
    for (const auto& file : python_files(run.files.base)) run.notes.push_back("not executed: " + file.filename().string() + " (Python code in the model directory)");
  }
  run.decoder = load_decoder(run.files.base, compute_type(recipe.model.compute), recipe.model.quantize_base);
  note_whole_weights(run);
  if (options.hash_base) run.base_hashes = std::make_shared<const FileHashes>(run.decoder->source().files());
  if (const auto* experts = run.decoder->spec().experts(); recipe.objective.load_balancing > 0 && (!experts || !experts->has_balancing_loss)) {
    fail("recipe", "expected objective.load_balancing 0 with a {} model, {}, got {:g} — take it out", run.decoder->spec().family,
         experts ? "whose family defines no such loss" : "which has no experts", recipe.objective.load_balancing);
  }
  run.adapters = std::make_unique<AdapterSet>(*run.decoder, recipe.adapter, static_cast<uint64_t>(recipe.run.seed));
  if (recipe.adapter.from) copy_adapter(*run.adapters, *recipe.adapter.from);
  if (recipe.adapter.quantization_aware != "none") round_adapted_weights(run);

  run.context = template_context(run.files.base, recipe.data);
  run.recipe.data.template_date = date_text(run.context.now);
  take_teacher(run, options);

  DatasetRequest request;
  request.train = source_options(recipe.data.train);
  request.validation = source_options(recipe.data.validation);
  request.test = source_options(recipe.data.test);
  request.general = source_options(recipe.data.general);
  request.validation_fraction = recipe.data.validation_fraction;
  request.context = run.context;
  request.max_tokens = recipe.data.max_tokens;
  request.over_long = over_long_of(recipe.data.over_long);
  request.prompts_may_train = recipe.objective.on_policy_share > 0 || (recipe.objective.distils() && recipe.teacher.answers());
  if (recipe.objective.distils() && recipe.teacher.answers() && !options.teaches) {
    request.rewrite_rows = [&run](std::vector<Row>& rows) {
      const auto counts = take_teacher_answers(run.recipe, run.teacher_store.get(), rows);
      run.answers.kept += counts.kept, run.answers.missing += counts.missing, run.answers.unfinished += counts.unfinished, run.answers.wrong += counts.wrong;
    };
  }
  request.cache = store_folder(recipe);
  request.threads = static_cast<int>(run.threads);
  request.log = options.log;
  request.progress = options.progress;
  if (run.group->launch().local_rank > 0) run.group->barrier("tokenising the data");
  run.dataset = open_dataset(request);
  if (run.group->launch().local_rank == 0) run.group->barrier("tokenising the data");
  if (run.dataset.train.num_sequences() == 0) fail("data", "expected at least one row to train on, got none — see the findings of `graft plan`");

  check_on_policy(run);
  run.steps_per_epoch = steps_per_epoch(run.dataset.train.num_sequences(), recipe.optimizer.batch_rows);
  run.total_steps = recipe.schedule.steps ? *recipe.schedule.steps
                                          : static_cast<int64_t>(std::llround(recipe.schedule.epochs * static_cast<double>(run.steps_per_epoch)));
  if (run.total_steps < 1) fail("recipe", "expected at least one step, got schedule.epochs {} of {} steps", recipe.schedule.epochs, run.steps_per_epoch);
  run.learning_rate = recipe.optimizer.learning_rate ? *recipe.optimizer.learning_rate
                                                     : auto_learning_rate(run.decoder->spec().family, run.decoder->spec().hidden_size) * (recipe.adapter.kind == "full" ? 0.1 : 1);
  if (!recipe.optimizer.learning_rate) run.notes.push_back(fmt::format("learning rate {:.2e} (auto)", run.learning_rate));
  choose_recompute(run);
  return run;
}

Manifest manifest_of(const PreparedRun& run) {
  Manifest manifest;
  manifest.program_version = GRAFT_VERSION;
  manifest.program_build = program_build_id();
  manifest.versions = {{"libtorch", "2.11.0"}};
  manifest.base_name = run.files.base.filename().string();
  if (run.base_hashes) {
    manifest.base = run.base_hashes->get();
  } else {
    for (const auto& file : run.decoder->source().files()) manifest.base.push_back(manifest_file(file));
  }
  if (fs::is_directory(run.files.base)) manifest.base.push_back(manifest_file(run.files.base / "config.json"));
  manifest.family = run.decoder->spec().family;
  manifest.tokenizer_sha256 = run.context.tokenizer->fingerprint;
  manifest.template_sha256 = run.context.chat_template ? run.context.chat_template->fingerprint() : "";
  manifest.template_date = run.recipe.data.template_date;
  const auto add_files = [](const std::vector<DataSource>& sources, std::vector<ManifestFile>& files) {
    for (const auto& source : sources) {
      if (fs::is_regular_file(source.path)) files.push_back(manifest_file(source.path));
    }
  };
  add_files(run.recipe.data.train, manifest.train);
  add_files(run.recipe.data.validation, manifest.validation);
  add_files(run.recipe.data.test, manifest.test);
  Sha256 rows;
  for (const auto* split : {&run.dataset.train, &run.dataset.validation, &run.dataset.test}) {
    for (const auto& row : split->rows) rows.update(row.row_id);
    rows.update("|");
  }
  for (const auto& row : run.dataset.general.rows) rows.update(row.row_id);
  manifest.rows_sha256 = rows.finish();
  manifest.base_licence = declared_licence(run.files.base);
  if (run.recipe.objective.distils()) {
    manifest.teacher_name = teacher_name(run);
    manifest.teacher_licence = teacher_licence(run);
    if (run.teacher_hashes) manifest.teacher = run.teacher_hashes->get();
    if (run.demonstration) manifest.teacher.push_back(manifest_file(*run.recipe.teacher.demonstration));
  }
  manifest.threads = run.threads;
  manifest.seed = run.recipe.run.seed;
  manifest.compute = run.recipe.model.compute;
  manifest.device = run.device.name();
  manifest.started = utc_now();
  manifest.machine = machine_info();
  if (run.device.gpu) manifest.machine.gpu = run.device.gpu->name;
  return manifest;
}

int64_t largest_micro_batch(const PreparedRun& run) {
  int64_t tokens = 0;
  for (int64_t step = 0; step < std::min(run.steps_per_epoch, run.total_steps); ++step) {
    for (const auto& sequences : run.micro_batches(run.sequences_of_step(step))) {
      int64_t sum = 0;
      for (const auto sequence : sequences) sum += run.dataset.train.lengths[sequence];
      tokens = std::max(tokens, sum);
    }
  }
  if (const auto answered = static_cast<int64_t>(on_policy_sequences(run, 0).size()); answered > 0) {   // as long as they may become
    const int64_t longest = run.dataset.train.statistics.longest + run.recipe.objective.on_policy_max_new_tokens;
    tokens = std::max({tokens, longest, std::min(run.recipe.data.pack_tokens, answered * longest)});
  }
  return tokens;
}

int64_t widest_channel(const DecoderSpec& spec) {
  int64_t widest = 0;
  for (const auto& layer : spec.layers) {
    const auto* experts = layer.experts();
    widest = std::max(widest, experts ? experts->router.experts_per_token * experts->width + experts->shared_width : layer.mlp().width);
  }
  return widest;
}

int64_t latent_width(const DecoderSpec& spec) {
  const auto* latent = spec.attention_layer().latent_attention();
  return latent ? 2 * (latent->query_rank + latent->key_value_rank) + latent->rotary_size + latent->num_heads * latent->value_size : 0;
}

int64_t selected_key_bytes(const PreparedRun& run, int64_t tokens, Recompute recompute) {
  const auto& layers = run.decoder->spec().layers;
  const int64_t longest = run.dataset.train.statistics.longest;
  int64_t kept = 0;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const auto* latent = layers[layer].latent_attention();
    if (!latent || !latent->indexer || latent->indexer->shared || longest <= latent->indexer->keys_per_query) continue;
    const bool hands_on = layer + 1 < layers.size() && layers[layer + 1].takes_selected_keys();
    kept = std::max<int64_t>(1, kept + (recompute == Recompute::kNone || hands_on ? 1 : 0));
  }
  return kept * tokens * key_bytes(longest);
}

MemoryEstimate estimate_memory(const PreparedRun& run, Recompute recompute) {
  const auto& spec = run.decoder->spec();
  const auto heads = spec.attention_layer().heads();
  const int64_t element = run.recipe.model.compute == "float32" ? 4 : 2;
  const int64_t query = heads.num_heads * heads.size, key = heads.num_kv_heads * heads.size;
  const int64_t hidden = spec.hidden_size, width = widest_channel(spec), rank = run.recipe.adapter.rank;
  const int64_t tokens = largest_micro_batch(run);
  MemoryEstimate estimate;
  for (const auto& weight : run.decoder->weights()) estimate.base += static_cast<int64_t>(weight.tensor->bytes.size());
  if (run.served) estimate.served = run.served->num_bytes();
  if (run.teacher) estimate.teacher = run.teacher->num_bytes();
  if (run.span_teacher) estimate.teacher = run.span_teacher->num_bytes();
  estimate.adapters = run.adapters->num_parameters() * 24;   // value, gradient (float64, and float32 for the update), two moments
  const int64_t per_token_layer = element * (2 * hidden + query + 2 * key + query + latent_width(spec) + 2 * width) + 4 * heads.num_heads + 4 * 7 * rank + 8;
  const int64_t layers = static_cast<int64_t>(spec.layers.size());
  // An eighth more: what the heap rounds up and cannot reuse (measured at 500 and 2,000 tokens).
  estimate.activations = 9 * tokens / 8 * (recompute == Recompute::kNone ? layers * per_token_layer : layers * element * hidden + per_token_layer);
  estimate.activations += selected_key_bytes(run, tokens, recompute);
  if (run.hidden_matching) estimate.activations += run.hidden_matching->num_bytes(tokens);
  // Scratch of one operator at a time: backward of gate and up (dy and p and dp), of attention (heads, gradients), or a block of logits;
  // beside it the gradients that leave gate and up.
  const int64_t extended = hidden + 2 * rank, logit_bytes = 4 * spec.vocab_size;
  const int64_t logits = logit_bytes * rows_of_block(tokens, logit_bytes, default_loss_buffer_bytes(true));
  int64_t operators = tokens * 4 * std::max(2 * width + 2 * extended, 6 * query + 4 * key);
  if (const auto* experts = spec.experts()) {   // results of all choices beside each other, and at most all tokens on one expert
    operators = std::max(operators, tokens * 4 * (experts->router.experts_per_token * hidden + 4 * extended + 6 * experts->width + 4 * experts->router.num_experts));
  }
  estimate.scratch = std::max(operators, logits) + tokens * element * (2 * width + 2 * hidden);
  estimate.program = int64_t{150} << 20;
  if (run.device.gpu) {   // the steps' activations are there; its libraries are here
    estimate.activations = 0;
    estimate.program += int64_t{1} << 30;
  }
  return estimate;
}

}  // namespace graft
