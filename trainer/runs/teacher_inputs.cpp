#include "trainer/runs/teacher_inputs.h"

#include <algorithm>
#include <cmath>
#include <fstream>

#include "checkpoints/hash.h"
#include "data/rows/packing.h"
#include "data/teacher_signals/server_address.h"
#include "kernels/common/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "trainer/distillation/label_targets.h"
#include "trainer/runs/teacher_answers.h"

namespace graft {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kCheckedTokens = 256;
constexpr int64_t kFewTokens = 16;   // of which nothing is concluded
constexpr double kClearly = 1;       // nats a token

SignalForm form_of(const PreparedRun& run) {
  const auto& teacher = run.recipe.teacher;
  return {teacher.entries == "top" ? SignalForm::Kind::kTop : SignalForm::Kind::kDrawn, teacher.num_entries, run.decoder->head().rows()};
}

std::vector<fs::path> teacher_weight_files(const ModelFiles& files) {
  auto paths = open_tensors(files.base)->files();
  if (files.adapter) paths.push_back(*files.adapter / "adapter_model.safetensors");
  return paths;
}

struct CheckedTokens {
  Batch batch;
  std::vector<int64_t> sequences;
  std::vector<int32_t> labels, shifted;   // of taught tokens
};

// Whole rows of the first step.
CheckedTokens first_tokens(const PreparedRun& run) {
  CheckedTokens checked;
  int64_t tokens = 0;
  for (const auto sequence : run.sequences_of_step(0)) {
    const auto count = run.count_taught(run.dataset.train.spans({sequence}));
    if (tokens > 0 && tokens + count > kCheckedTokens) break;
    checked.sequences.push_back(sequence);
    tokens += count;
  }
  checked.batch = run.batch_of(run.dataset.train, checked.sequences);
  for (const auto token : checked.batch.taught_tokens()) checked.labels.push_back(checked.batch.tokens_N[static_cast<size_t>(token) + 1]);
  checked.shifted = checked.labels;
  if (!checked.shifted.empty()) std::rotate(checked.shifted.begin(), checked.shifted.begin() + 1, checked.shifted.end());
  return checked;
}

double mean(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

std::vector<int32_t> likeliest(const at::Tensor& hidden_MC, const LinearHead& head) {
  std::vector<int32_t> tokens;
  const int64_t vocab = head.rows(), block = rows_of_block(hidden_MC.size(0), 4 * vocab, default_loss_buffer_bytes(true));
  for (int64_t first = 0; first < hidden_MC.size(0); first += block) {
    const auto logits_BV = head_logits(hidden_MC.narrow(0, first, std::min(block, hidden_MC.size(0) - first)).contiguous(), head);
    for (int64_t row = 0; row < logits_BV.size(0); ++row) {
      const float* logits = logits_BV.const_data_ptr<float>() + row * vocab;
      tokens.push_back(static_cast<int32_t>(std::max_element(logits, logits + vocab) - logits));
    }
  }
  return tokens;
}

double equal_share(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  int64_t equal = 0;
  for (size_t i = 0; i < a.size(); ++i) equal += a[i] == b[i];
  return a.empty() ? 0 : static_cast<double>(equal) / static_cast<double>(a.size());
}

// Of stored entries: a label that is none of them has its share of the rest, and of draws half a draw's.
double stored_loss(const SignalRows& rows, const std::vector<int32_t>& labels, int64_t vocab, double one_draw) {
  double sum = 0;
  for (size_t token = 0; token < labels.size(); ++token) {
    double probability = std::max(rows.tail_mass_M[token] / static_cast<double>(vocab), 0.5 * one_draw / static_cast<double>(vocab));
    for (int64_t i = 0; i < rows.num_entries; ++i) {
      const auto entry = token * static_cast<size_t>(rows.num_entries) + static_cast<size_t>(i);
      if (rows.ids_MK[entry] == labels[token]) probability = std::exp(static_cast<double>(rows.log_probabilities_MK[entry]));
    }
    sum -= std::log(probability);
  }
  return sum / static_cast<double>(std::max<size_t>(1, labels.size()));
}

std::vector<int32_t> likeliest(const SignalRows& rows) {
  std::vector<int32_t> tokens;
  for (size_t token = 0; token < rows.tail_mass_M.size(); ++token) {
    const auto* begin = rows.log_probabilities_MK.data() + token * static_cast<size_t>(rows.num_entries);
    const auto* ids = rows.ids_MK.data() + token * static_cast<size_t>(rows.num_entries);
    int64_t best = 0;
    for (int64_t i = 1; i < rows.num_entries; ++i) {
      if (ids[i] >= 0 && begin[i] > begin[best]) best = i;
    }
    tokens.push_back(ids[best]);
  }
  return tokens;
}

// What kept.json says of a student that `graft export --hidden` cut from a wider model.
std::vector<int64_t> kept_channels(const fs::path& base) {
  std::ifstream stream(base / "kept.json", std::ios::binary);
  const auto kept = stream ? nlohmann::json::parse(stream, nullptr, /*allow_exceptions=*/false) : nlohmann::json();
  std::vector<int64_t> channels;
  if (!kept.is_object() || !kept.contains("hidden") || !kept["hidden"].is_array()) return channels;
  for (const auto& channel : kept["hidden"]) channels.push_back(channel.is_number_integer() ? channel.get<int64_t>() : -1);
  return channels;
}

}  // namespace

fs::path store_folder(const Recipe& recipe) { return recipe.run.cache ? fs::path(*recipe.run.cache) : fs::path(recipe.run.out).parent_path() / "cache"; }

void take_teacher(PreparedRun& run, const PrepareOptions& options) {
  const auto& recipe = run.recipe;
  if (!recipe.objective.distils()) return;
  const auto& wanted = recipe.teacher;
  if (wanted.demonstration) run.demonstration = read_demonstration(*wanted.demonstration);
  run.teacher_files = run.files;
  if (wanted.has_files()) {
    run.teacher_files = find_model(wanted.model);
    if (wanted.adapter) run.teacher_files.adapter = *wanted.adapter;
    if (options.hash_base || wanted.stored()) run.teacher_hashes = std::make_shared<const FileHashes>(teacher_weight_files(run.teacher_files));
  }
  if (recipe.objective.by_spans()) {
    run.span_teacher = std::make_unique<SpanTeacher>(wanted);
    return;
  }
  if (!wanted.server && (wanted.cached() ? options.teaches : !wanted.answers())) {
    run.teacher = wanted.is_self() ? std::make_unique<TeacherModel>(*run.decoder, *run.adapters) : std::make_unique<TeacherModel>(wanted, *run.decoder, *run.context.tokenizer);
    if (!run.teacher->note().empty()) run.notes.push_back(run.teacher->note());
  }
  if (recipe.objective.matches_hidden_states()) {
    run.hidden_matching = std::make_unique<HiddenMatching>(recipe.objective, run.decoder->spec(), run.teacher->decoder().spec(), *run.adapters, static_cast<uint64_t>(recipe.run.seed),
                                                           kept_channels(run.files.base));
    run.teacher->keep_states_after(run.hidden_matching->teacher_layers());
    run.notes.push_back(run.hidden_matching->describe());
  }
  if (!wanted.stored() || options.teaches) return;
  try {
    run.teacher_store = std::make_unique<TeacherStore>(store_folder(recipe), wanted.answers() ? answers_identity(run) : teacher_identity(run), TeacherStore::Mode::kRead);
  } catch (const UserError& error) {
    run.no_teacher_store = error.what();
  }
}

std::string teacher_weights_hash(const PreparedRun& run) {
  const auto& recipe = run.recipe;
  if (recipe.teacher.server) return sha256(fmt::format("server\n{}\n{}", server_address(*recipe.teacher.server).url, recipe.teacher.server_model.value_or("")));
  Sha256 hash;
  for (const auto& file : run.teacher_hashes->get()) hash.update(file.sha256);
  hash.update(fmt::format("|{}|{}|{}", recipe.teacher.compute, run.teacher_files.run ? run.teacher_files.quantize_base : recipe.teacher.quantize_base,
                          run.teacher_files.run ? load_recipe(*run.teacher_files.run / "recipe.yaml", {}).adapter.quantization_aware : "none"));
  return hash.finish();
}

TeacherIdentity teacher_identity(const PreparedRun& run) {
  const auto& recipe = run.recipe;
  TeacherIdentity identity;
  identity.teacher = teacher_weights_hash(run);
  if (recipe.teacher.server) identity.served = nlohmann::ordered_json::object();
  identity.tokenizer = run.context.tokenizer->fingerprint;
  identity.chat_template = run.context.chat_template ? run.context.chat_template->fingerprint() : "none";
  if (run.demonstration) identity.chat_template += " after " + run.demonstration->sha256;
  identity.form = form_of(run);
  identity.temperature = recipe.objective.temperature;
  identity.seed = static_cast<uint64_t>(recipe.run.seed);
  return identity;
}

std::string teacher_name(const PreparedRun& run) {
  const auto& teacher = run.recipe.teacher;
  if (teacher.is_self()) return "self";
  if (!teacher.server) return run.teacher_files.base.filename().string();
  const auto name = teacher.server_model ? *teacher.server_model : run.teacher_store ? run.teacher_store->served().value("id", "") : "the server's model";
  return name.starts_with('/') ? fs::path(name).filename().string() : name;   // llama.cpp's server names a model by its file
}

std::vector<std::string> teacher_licences(const PreparedRun& run) {
  const auto& teacher = run.recipe.teacher;
  return teacher.server ? std::vector<std::string>{teacher.licence.value_or("")} : declared_licences(run.teacher_files.base);
}

std::string teacher_licence(const PreparedRun& run) {
  return run.recipe.teacher.server ? teacher_licences(run).front() : declared_licence(run.teacher_files.base);
}

std::vector<int64_t> missing_signals(const PreparedRun& run, const TeacherStore* store, const DatasetSplit& split) {
  std::vector<int64_t> missing;
  for (int64_t sequence = 0; sequence < split.num_sequences(); ++sequence) {
    const auto span = split.spans({sequence}).front();
    if (!store || !store->contains(taught_row_hash(span.ids, run.taught_mask(span)))) missing.push_back(sequence);
  }
  return missing;
}

std::string TeacherCheck::note() const {
  if (spans > 0 || tokens < kFewTokens || teacher_loss < shifted_loss || !problem().empty()) return {};
  return fmt::format("warning: the teacher finds the rows' own tokens no likelier than those of the next position ({:.2f} and {:.2f} nats a token): it does not know this task", teacher_loss,
                     shifted_loss);
}

std::string TeacherCheck::problem() const {
  if (spans > 0 || tokens < kFewTokens || teacher_loss < shifted_loss + kClearly) return {};   // spans were aligned by their text
  return fmt::format("expected the teacher to find the rows' own tokens likelier than those of the next position, got {:.2f} nats a token for their own and {:.2f} for the next — do teacher and "
                     "student share template, tokens and positions? A teacher that was trained for another task or template cannot teach these rows", teacher_loss, shifted_loss);
}

TeacherCheck check_teacher(const PreparedRun& run) {
  const auto checked = first_tokens(run);
  TeacherCheck check;
  check.tokens = static_cast<int64_t>(checked.labels.size());
  if (check.tokens == 0) return check;
  auto signals = run.teacher_signals(run.dataset.train.spans(checked.sequences), run.dataset.train.rows_of(checked.sequences), checked.batch);
  if (!signals) return check;
  if (signals->by_spans) {
    for (const auto& span : signals->spans) check.teacher_loss -= span.log_probability / static_cast<double>(check.tokens);
    check.spans = static_cast<int64_t>(signals->spans.size());
    ObjectiveLossOptions options;
    options.want_gradient = false;
    check.divergence = objective_loss(taught_hidden(*run.decoder, checked.batch), WholeHead(run.decoder->head()), checked.labels, {}, objective_of(run.recipe.objective), &*signals, options)
                           .weighted_divergence / static_cast<double>(check.tokens);
    return check;
  }
  const auto student_MC = taught_hidden(*run.decoder, checked.batch);
  const auto student_head = run.decoder->head();
  if (signals->head) {
    CrossEntropyOptions options;
    options.want_gradient = false;
    const auto loss_of = [&](const std::vector<int32_t>& labels) { return mean(linear_cross_entropy(signals->hidden_MC, *signals->head, labels, {}, options).losses_M); };
    check.teacher_loss = loss_of(checked.labels);
    check.shifted_loss = loss_of(checked.shifted);
    check.agreement = equal_share(likeliest(student_MC, student_head), likeliest(signals->hidden_MC, run.teacher->head()));
  } else {
    const double one_draw = 1.0 / static_cast<double>(run.recipe.teacher.num_entries);
    check.teacher_loss = stored_loss(signals->entries, checked.labels, student_head.rows(), one_draw);
    check.shifted_loss = stored_loss(signals->entries, checked.shifted, student_head.rows(), one_draw);
    check.agreement = equal_share(likeliest(student_MC, student_head), likeliest(signals->entries));
  }
  if (run.recipe.teacher.rest_is_labels()) signals->entries = rest_to_labels(signals->entries, checked.batch);
  ObjectiveLossOptions options;
  options.want_gradient = false;
  const auto loss = objective_loss(student_MC, WholeHead(student_head), checked.labels, {}, objective_of(run.recipe.objective), &*signals, options);
  check.divergence = loss.weighted_divergence / static_cast<double>(check.tokens);
  if (run.hidden_matching) {
    auto batch = checked.batch;
    batch.weights_N.clear();
    MicroBatchOptions matching;
    matching.want_gradient = false;
    matching.hidden_matching = run.hidden_matching.get();
    matching.teacher = &*signals;
    check.hidden_state_loss = run_micro_batch(*run.decoder, nullptr, batch, matching).weighted_hidden_state_loss / static_cast<double>(check.tokens);
  }
  return check;
}

}  // namespace graft
