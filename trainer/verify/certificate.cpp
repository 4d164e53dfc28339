#include "trainer/verify/certificate.h"

#include <algorithm>
#include <cmath>

#include "checkpoints/hash.h"
#include "data/rows/packing.h"
#include "kernels/common/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "trainer/report/log_file.h"
#include "trainer/report/manifest.h"
#include "trainer/report/progress.h"
#include "trainer/verify/share_of_gain.h"

namespace graft {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr size_t kEnoughRows = 200;
constexpr int64_t kEnoughTargets = 10000, kAnswerSlack = 8;

const DatasetSplit& held_out_split(const Dataset& dataset) {
  if (dataset.test.num_sequences() > 0) return dataset.test;
  if (dataset.validation.num_sequences() > 0) return dataset.validation;
  return dataset.train;
}

// Where two texts part: for messages that must not show them.
size_t first_difference(const std::string& a, const std::string& b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

// A form of which less than the whole gain may be expected.
bool has_few_bits(const std::string& format) {
  constexpr std::string_view kForms[] = {"gguf:Q2", "gguf:Q3", "gguf:Q4", "gguf:Q5", "gguf:Q6", "gguf:IQ4", "gguf:MXFP4"};
  return std::any_of(std::begin(kForms), std::end(kForms), [&](std::string_view form) { return format.starts_with(form); });
}

std::string piece(const Tokenizer& tokenizer, int32_t id) { return fmt::format("{} ({})", tokenizer.decode({id}), id); }

std::string trimmed(std::string text) {
  const auto begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

// The reference decoder behind the interface that artefacts are judged by.
struct ComputeGuard {
  Decoder& decoder;
  ComputeType before;
  ComputeGuard(Decoder& d, ComputeType wanted) : decoder(d), before(d.compute()) { d.set_compute(wanted); }
  ~ComputeGuard() { decoder.set_compute(before); }
};

Batch packed_rows(const std::vector<HeldOutRow>& rows, const std::vector<int64_t>& chosen) {
  Batch batch;
  for (const auto row : chosen) {
    batch.add_document(rows[row].ids);
    for (size_t i = 0; i < rows[row].ids.size(); ++i) {
      batch.labels_N.push_back(rows[row].predicts_target[i] ? rows[row].ids[i + 1] : kUnsupervised);
    }
  }
  return batch;
}

std::vector<std::vector<int64_t>> packs_of(const std::vector<HeldOutRow>& rows) {
  std::vector<int64_t> order, lengths;
  for (size_t i = 0; i < rows.size(); ++i) {
    order.push_back(static_cast<int64_t>(i));
    lengths.push_back(static_cast<int64_t>(rows[i].ids.size()));
  }
  return pack_rows(order, lengths, 1024);
}

double mean_loss(const Decoder& decoder, const std::vector<HeldOutRow>& rows) {
  MicroBatchOptions options;
  options.want_gradient = false;
  double sum = 0;
  int64_t count = 0;
  for (const auto& pack : packs_of(rows)) {
    const auto result = run_micro_batch(decoder, nullptr, packed_rows(rows, pack), options);
    sum += result.weighted_loss;
    count += result.num_supervised;
  }
  return sum / static_cast<double>(std::max<int64_t>(count, 1));
}

std::string file_or_folder_sha256(const fs::path& path) {
  if (!fs::is_directory(path)) return sha256_file(path);
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  Sha256 hash;
  for (const auto& file : files) hash.update(fs::relative(file, path).generic_string()).update("=").update(sha256_file(file)).update(";");
  return hash.finish();
}

ordered_json to_json(const DivergenceSummary& summary) {
  return {{"positions", summary.positions}, {"mean_kl", summary.mean_kl}, {"p99_kl", summary.p99_kl}, {"max_kl", summary.max_kl},
          {"top1_agreement", summary.top1_agreement}};
}

bool is_answered(const HeldOutRow& row) { return row.label && !row.prompt.empty(); }

int64_t labelled_rows(const std::vector<HeldOutRow>& rows) { return std::count_if(rows.begin(), rows.end(), is_answered); }

// "loss": a number, or null with "loss_reason".
void add_share(ordered_json& gain, const std::string& kind, const ShareOfGain& share) {
  gain[kind] = share.share ? ordered_json(*share.share) : ordered_json(nullptr);
  if (!share.share) gain[kind + "_reason"] = share.reason;
}

void check_shares(const ordered_json& gain, const std::optional<double>& smallest, std::vector<std::string>& problems) {
  if (!smallest) return;
  bool known = false;
  for (const auto& [kind, share] : gain.items()) {
    if (!share.is_number()) continue;
    known = true;
    const auto value = share.get<double>();
    if (!(value >= *smallest)) problems.push_back(fmt::format("keeps {:.1f} % of the gain by {}, at least {:g} % were asked for", 100 * value, kind, 100 * *smallest));
  }
  if (!known) problems.push_back(fmt::format("the share of the gain, of which at least {:g} % were asked for, is unknown", 100 * *smallest));
}

// A built-in conversation: rendered text and ids go into the certificate in clear, so that a served template can be compared by eye.
ordered_json synthetic_conversation(const TemplateContext& context) {
  if (!context.chat_template) return nullptr;
  const ordered_json row = {{"messages", {{{"role", "user"}, {"content", "Where is my parcel?"}}}}};
  try {
    const auto encoded = encode_prompt(context, row);
    return {{"text", encoded.text}, {"ids", encoded.ids}};
  } catch (const UserError& error) {
    return {{"error", error.what()}};   // a template that wants other roles: said, not hidden
  }
}

}  // namespace

double greedy_accuracy(ServedModel& model, const std::vector<HeldOutRow>& rows, const Tokenizer& tokenizer) {
  std::vector<std::vector<int32_t>> prompts;
  std::vector<const HeldOutRow*> asked;
  int64_t longest = 0;
  for (const auto& row : rows) {
    if (!is_answered(row)) continue;
    prompts.push_back(row.prompt);
    asked.push_back(&row);
    longest = std::max(longest, static_cast<int64_t>(row.ids.size() - std::min(row.prompt.size(), row.ids.size())));
  }
  if (asked.empty()) return 0;
  const auto answers = model.greedy(prompts, longest + kAnswerSlack);
  int64_t correct = 0;
  for (size_t i = 0; i < answers.size(); ++i) correct += answers[i].stopped && trimmed(tokenizer.decode(answers[i].ids)) == *asked[i]->label;
  return static_cast<double>(correct) / static_cast<double>(asked.size());
}

std::vector<HeldOutRow> served_rows(ServedModel& served, const ServedArtefact& artefact, const TrainedReference& reference,
                                    std::vector<std::string>& problems) {
  const auto& trained = reference.run.context;
  auto rows = reference.rows;
  const auto stop_ids = served.stop_ids();
  std::optional<int32_t> unstopped;
  for (const auto& row : rows) {
    if (row.conversation.is_null()) continue;
    const auto last = std::find(row.predicts_target.rbegin(), row.predicts_target.rend(), 1);
    if (last == row.predicts_target.rend()) continue;
    const auto end = row.ids[static_cast<size_t>(row.predicts_target.rend() - last)];
    if (std::find(stop_ids.begin(), stop_ids.end(), end) == stop_ids.end()) unstopped = end;
  }
  if (unstopped) problems.push_back(fmt::format("answers were trained to end with {}, where the served model does not stop", piece(*trained.tokenizer, *unstopped)));
  if (trained.tokenizer->eos_id && served.end_id() != trained.tokenizer->eos_id) {
    problems.push_back(fmt::format("the served end token is {}, the base's is {}", served.end_id() ? piece(*trained.tokenizer, *served.end_id()) : "none",
                                   piece(*trained.tokenizer, *trained.tokenizer->eos_id)));
  }
  if (!trained.chat_template || std::all_of(rows.begin(), rows.end(), [](const HeldOutRow& row) { return row.conversation.is_null(); })) return rows;
  auto context = trained;
  context.chat_template = served_template(artefact);
  if (!context.chat_template) {
    problems.push_back("the served model has no chat template");
    return rows;
  }
  size_t other_texts = 0, other_ids = 0, first_text = 0, first_row = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    auto& row = rows[i];
    if (row.conversation.is_null()) continue;
    row.prompt_text = encode_prompt(context, row.conversation).text;
    row.prompt = served.tokenize(row.prompt_text);
    const auto& as_trained = reference.rows[i];
    if (row.prompt_text != as_trained.prompt_text) {
      if (other_texts++ == 0) first_text = first_difference(row.prompt_text, as_trained.prompt_text);
    } else if (row.prompt != as_trained.prompt && other_ids++ == 0) {
      first_row = i;
    }
  }
  if (other_texts) problems.push_back(fmt::format("the served template renders {} of {} prompts otherwise than trained, first at byte {}", other_texts, rows.size(), first_text));
  if (other_ids) problems.push_back(fmt::format("the served tokenizer gives other ids for {} of {} prompts, first for held-out row {}", other_ids, rows.size(), first_row + 1));
  return rows;
}

TrainedReference::TrainedReference(PreparedRun& prepared) : run(prepared) {
  const auto& split = held_out_split(run.dataset);
  split_name = split.name;
  Sha256 prompts_hash, ids_hash;
  for (int64_t sequence = 0; sequence < split.num_sequences(); ++sequence) {
    if (rows.size() >= kEnoughRows || num_targets >= kEnoughTargets) break;
    const auto span = split.tokens.row(sequence);
    const auto& source = split.row_of_sequence(sequence);
    HeldOutRow row;
    row.ids.assign(span.ids.begin(), span.ids.end());
    row.predicts_target.assign(row.ids.size(), 0);
    for (size_t i = 0; i + 1 < row.ids.size(); ++i) num_targets += row.predicts_target[i] = span.supervised[i + 1] != 0;
    const auto asked = prompt_of(source);
    if (run.context.chat_template && asked.contains("messages") && !asked["messages"].empty()) {
      row.conversation = asked;
      auto prompt = encode_prompt(run.context, row.conversation);
      row.prompt_text = std::move(prompt.text);
      row.prompt = std::move(prompt.ids);
    }
    row.label = source.label;
    prompts_hash.update(row.prompt_text).update("\x1e");
    ids_hash.update(std::as_bytes(std::span(row.ids))).update("\x1e");
    rows.push_back(std::move(row));
  }
  log().info(fmt::format("certificates: {} rows of {} through the trained model and the base, in float32", rows.size(), split_name));
  prompts_sha256 = prompts_hash.finish();
  ids_sha256 = ids_hash.finish();

  hidden_TC.resize(rows.size());
  {
    const ComputeGuard exact(*run.decoder, ComputeType::kFloat32);
    for (const auto& pack : packs_of(rows)) {
      const auto batch = packed_rows(rows, pack);
      const auto hidden = run.decoder->forward(batch);
      for (size_t d = 0; d < pack.size(); ++d) {
        hidden_TC[pack[d]] = hidden.narrow(0, batch.document_offsets[d], batch.document_offsets[d + 1] - batch.document_offsets[d]).clone();
      }
    }
    trained_loss = mean_loss(*run.decoder, rows);
    const bool labelled = std::any_of(rows.begin(), rows.end(), [](const HeldOutRow& row) { return row.label.has_value(); });
    const auto served = serve_decoder(*run.decoder, run.context.tokenizer);
    if (labelled) trained_accuracy = greedy_accuracy(*served, rows, *run.context.tokenizer);
    run.adapters->set_enabled(false);
    base_loss = mean_loss(*run.decoder, rows);
    if (labelled) base_accuracy = greedy_accuracy(*served, rows, *run.context.tokenizer);
    run.adapters->set_enabled(true);
  }
  if (run.decoder->compute() == ComputeType::kBFloat16) {
    std::vector<PositionDivergence> positions;
    for (const auto& pack : packs_of(rows)) {
      const auto batch = packed_rows(rows, pack);
      const auto hidden = run.decoder->forward(batch).to(at::kFloat);
      for (size_t d = 0; d < pack.size(); ++d) {
        for (size_t i = 0; i < rows[pack[d]].ids.size(); ++i) {
          if (!rows[pack[d]].predicts_target[i]) continue;
          const auto part = divergence(head_logits(hidden_TC[pack[d]].narrow(0, static_cast<int64_t>(i), 1), run.decoder->head()),
                                       head_logits(hidden.narrow(0, batch.document_offsets[d] + static_cast<int64_t>(i), 1), run.decoder->head()));
          positions.push_back(part[0]);
        }
      }
    }
    bfloat16_compute = summarise(std::move(positions));
  }
}

ordered_json make_certificate(TrainedReference& reference, const CertificateRequest& request) {
  auto& run = reference.run;
  auto served = request.engine == "graft" ? open_with_graft(request.artefact)
                                          : open_with_engine(request.engine, request.artefact, run.threads, request.cache_type);
  std::vector<std::string> problems;
  const auto rows_as_served = served_rows(*served, request.artefact, reference, problems);
  std::vector<PositionDivergence> targets, all;
  double loss_sum = 0;
  std::vector<std::vector<int32_t>> ids;
  int64_t num_tokens = 0;
  for (const auto& row : reference.rows) {
    ids.push_back(row.ids);
    num_tokens += static_cast<int64_t>(row.ids.size());
  }
  Progress progress(log(), fmt::format("verify {}, tokens", request.artefact.format), num_tokens, {});
  served->logits(ids, [&](size_t row, int64_t first, const at::Tensor& logits_BV) {
    const auto trained = head_logits(reference.hidden_TC[row].narrow(0, first, logits_BV.size(0)), run.decoder->head());
    const auto part = divergence(trained, logits_BV);
    const int64_t vocab = logits_BV.size(1);
    for (int64_t b = 0; b < logits_BV.size(0); ++b) {
      const auto position = static_cast<size_t>(first + b);
      all.push_back(part[b]);
      if (!reference.rows[row].predicts_target[position]) continue;
      targets.push_back(part[b]);
      const float* values = logits_BV.const_data_ptr<float>() + b * vocab;
      const float maximum = *std::max_element(values, values + vocab);
      double sum = 0;
      for (int64_t v = 0; v < vocab; ++v) sum += std::exp(static_cast<double>(values[v]) - maximum);
      loss_sum += maximum + std::log(sum) - values[reference.rows[row].ids[position + 1]];
    }
    progress.update(static_cast<int64_t>(all.size()));   // rows come packed, in another order
  });
  progress.finish();
  const auto over_targets = summarise(targets), over_all = summarise(all);
  const double exported_loss = loss_sum / static_cast<double>(std::max<size_t>(1, targets.size()));

  ordered_json task = {{"loss", {{"base", reference.base_loss}, {"trained", reference.trained_loss}, {"exported", exported_loss}}}};
  ordered_json gain = ordered_json::object();
  add_share(gain, "loss", share_of_gain_by_loss(reference.base_loss, reference.trained_loss, exported_loss));
  if (reference.trained_accuracy) {
    task["trained"] = *reference.trained_accuracy;
    task["base"] = *reference.base_accuracy;
    const double exported = greedy_accuracy(*served, rows_as_served, *run.context.tokenizer);
    task["exported"] = exported;
    add_share(gain, "task", share_of_gain_by_accuracy(*reference.base_accuracy, *reference.trained_accuracy, exported, labelled_rows(reference.rows)));
  }
  check_shares(gain, request.min_share_of_gain, problems);

  // The served template and tokenizer must give the very ids that were trained on.
  const auto synthetic = synthetic_conversation(run.context);
  if (synthetic.is_object() && synthetic.contains("ids")) {
    const auto served_ids = served->tokenize(synthetic["text"].get<std::string>());
    if (served_ids != synthetic["ids"].get<std::vector<int32_t>>()) problems.push_back("the served tokenizer gives other ids for the built-in conversation");
  }
  const bool passed = over_targets.mean_kl <= request.max_mean_kl && problems.empty() && std::isfinite(over_targets.mean_kl);
  ordered_json certificate = {{"format", request.artefact.format},
                              {"artifact", request.artefact.path.filename().string()},
                              {"reader", served->reader()},
                              {"split", reference.split_name},
                              {"rows", reference.rows.size()},
                              {"supervised_tokens", over_targets.positions},
                              {"positions", over_all.positions},
                              {"mean_kl", over_targets.mean_kl},
                              {"p99_kl", over_targets.p99_kl},
                              {"mean_kl_all", over_all.mean_kl},
                              {"p99_kl_all", over_all.p99_kl},
                              {"top1_agreement", over_targets.top1_agreement},
                              {"top1_agreement_all", over_all.top1_agreement},
                              {"task", task},
                              {"share_of_gain_kept", gain},
                              {"threshold", request.max_mean_kl},
                              {"passed", passed},
                              {"problems", problems},
                              {"sha256",
                               {{"artifact", file_or_folder_sha256(request.artefact.path)},
                                {"base", file_or_folder_sha256(run.files.base)},
                                {"prompts", reference.prompts_sha256},
                                {"ids", reference.ids_sha256},
                                {"template", run.context.chat_template ? run.context.chat_template->fingerprint() : ""},
                                {"tokenizer", run.context.tokenizer->fingerprint}}},
                              {"synthetic_conversation", synthetic}};
  if (request.min_share_of_gain) certificate["min_share_of_gain"] = *request.min_share_of_gain;
  if (run.served) {
    certificate["reference"] = fmt::format("the trained model is the base with the adapter rounded to {} (adapter.quantization_aware), for every export of this run", run.served->format());
  }
  if (reference.bfloat16_compute) certificate["bfloat16_compute"] = to_json(*reference.bfloat16_compute);
  if (!request.serve_command.empty()) certificate["serve"] = request.serve_command;
  if (!request.warning.empty()) certificate["warning"] = request.warning;
  if (reference.rows.size() < kEnoughRows && reference.num_targets < kEnoughTargets) {
    certificate["note"] = fmt::format("only {} rows were there; a full certificate has at least {} rows or {} supervised tokens", reference.rows.size(), kEnoughRows, kEnoughTargets);
  }
  return certificate;
}

std::string certificate_summary(const ordered_json& certificate) {
  auto text = fmt::format("{} {}: mean KL {:.2e} (at most {:.0e}), p99 {:.2e}, same top-1 {:.2f} %, read by {}",
                          certificate["passed"].get<bool>() ? "PASSED" : "FAILED", certificate["format"].get<std::string>(),
                          certificate["mean_kl"].get<double>(), certificate["threshold"].get<double>(), certificate["p99_kl"].get<double>(),
                          100 * certificate["top1_agreement"].get<double>(), certificate["reader"].get<std::string>());
  const auto& task = certificate["task"];
  if (task.contains("exported")) {
    text += fmt::format("; accuracy base {:.1f} %, trained {:.1f} %, exported {:.1f} %", 100 * task["base"].get<double>(), 100 * task["trained"].get<double>(),
                        100 * task["exported"].get<double>());
  }
  for (const auto& [kind, share] : certificate["share_of_gain_kept"].items()) {
    if (share.is_number()) text += fmt::format("; {:.1f} % of the gain kept by {}", 100 * share.get<double>(), kind);
    else if (kind.ends_with("_reason")) text += fmt::format("; share of the gain unknown: {}", share.get<std::string>());
  }
  if (certificate.contains("reference")) text += "; " + certificate["reference"].get<std::string>();
  for (const auto& problem : certificate["problems"]) text += "; " + problem.get<std::string>();
  if (!certificate["passed"].get<bool>()) {
    text += has_few_bits(certificate["format"].get<std::string>())
                ? " — this form loses what was trained; gguf:Q8_0, gguf:F16 and gguf-lora beside the original base keep it"
                : " — do not serve this artefact; compare the template, the tokenizer and the form named above";
  }
  return text;
}

}  // namespace graft
