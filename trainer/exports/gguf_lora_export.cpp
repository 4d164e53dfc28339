#include "trainer/exports/gguf_lora_export.h"

#include <algorithm>
#include <map>
#include <set>

#include <fmt/ranges.h>

#include "checkpoints/atomic_file.h"
#include "checkpoints/gguf_writer.h"
#include "kernels/common/error.h"
#include "trainer/exports/model_card.h"
#include "trainer/exports/output_place.h"
#include "trainer/models/families/family.h"

namespace graft {
namespace {

// The adapters of one tensor of the file: one; those of all experts, whose factors are stacked; or of parts of ours that are one matrix there, which share A.
struct TensorUpdates {
  std::vector<const LowRankUpdate*> updates;
  const LowRankUpdate& first() const { return *updates.front(); }
  const std::string& name() const { return first().rule->gguf; }
  bool is_stacked() const { return first().rule->gguf_form.whole.size() >= 3; }
  std::vector<int64_t> shape(int64_t rows, int64_t columns) const {
    if (!is_stacked()) return {rows, columns};
    return {static_cast<int64_t>(updates.size()), rows, columns};
  }
  int64_t outputs() const {   // of one matrix there
    int64_t rows = 0;
    for (const auto* update : updates) rows += update->outputs;
    return is_stacked() ? first().outputs : rows;
  }
};

void refuse_unserved(const ExportSource& source) {
  std::set<std::string> modules;
  for (const auto& [rule, update] : source.updates) {
    const auto module = rule->module_name();
    if (!rule->gguf_lora) modules.insert(module.substr(module.rfind('.') + 1));
  }
  if (modules.empty()) return;
  fail("exports", "expected adapters where llama.cpp adds them to a product, got some on {}, which it multiplies without adapters: the file would be served as if they were not "
       "there — export gguf:F16 (the adapter merged), or leave these modules out of adapter.targets", fmt::join(modules, ", "));
}

// In the model's order.
std::vector<TensorUpdates> updates_of(const ExportSource& source) {
  refuse_unserved(source);
  std::vector<TensorUpdates> tensors;
  std::map<std::string, size_t> by_name;
  for (const auto& weight : *source.weights) {
    const auto found = source.updates.find(weight.rule);
    if (found == source.updates.end()) continue;
    const auto [place, is_new] = by_name.try_emplace(weight.rule->gguf, tensors.size());
    if (is_new) tensors.emplace_back();
    tensors[place->second].updates.push_back(&found->second);   // experts stand in the map in their order
  }
  for (auto& tensor : tensors) {
    std::stable_sort(tensor.updates.begin(), tensor.updates.end(), [](const auto* a, const auto* b) { return a->rule->gguf_form.first < b->rule->gguf_form.first; });
  }
  return tensors;
}

// One alpha serves the file: where another matrix needs another, its B is multiplied.
double alpha_of(const LowRankUpdate& update) { return update.scale * static_cast<double>(update.rank); }

void append_a(const LowRankUpdate& update, std::vector<float>& all) {
  const auto first = all.size();
  all.insert(all.end(), update.a_RC, update.a_RC + update.rank * update.inputs);
  const auto columns = stored_column_of_ours(*update.rule, NameColumn::kGguf);
  for (int64_t r = 0; !columns.empty() && r < update.rank; ++r) {
    for (size_t c = 0; c < columns.size(); ++c) all[first + static_cast<size_t>(r * update.inputs + columns[c])] = update.a_RC[r * update.inputs + static_cast<int64_t>(c)];
  }
}

void append_b(const LowRankUpdate& update, double alpha, std::vector<float>& all) {
  const auto order = our_row_of_stored(*update.rule, NameColumn::kGguf);
  const double factor = alpha_of(update) == alpha ? 1 : alpha_of(update) / alpha;
  for (int64_t row = 0; row < update.outputs; ++row) {
    const float* ours = update.b_OR + (order.empty() ? row : order[row]) * update.rank;
    for (int64_t r = 0; r < update.rank; ++r) all.push_back(static_cast<float>(ours[r] * factor));
  }
}

}  // namespace

std::vector<ExportedTensor> gguf_lora_tensors(const ExportSource& source) {
  std::vector<ExportedTensor> tensors;
  for (const auto& updates : updates_of(source)) {
    const auto& first = updates.first();
    for (const bool is_a : {true, false}) {
      ExportedTensor tensor;
      tensor.name = updates.name() + (is_a ? ".lora_a" : ".lora_b");
      tensor.shape = is_a ? updates.shape(first.rank, first.inputs) : updates.shape(updates.outputs(), first.rank);
      tensor.adapted = true;
      tensors.push_back(std::move(tensor));
    }
  }
  return tensors;
}

void write_gguf_lora(const ExportSource& source, const ExportFormat& format, const std::filesystem::path& path, ExportResult& result) {
  const auto updates = updates_of(source);
  if (updates.empty()) fail("exports", "expected an adapter to write as gguf-lora, got none — give --adapter, or export gguf:F16");
  // 0 would read as "no alpha", scale 1; an adapter of scale 0 is no adapter.
  const double alpha = alpha_of(updates.front().first());
  if (alpha == 0) fail("exports", "expected an adapter with a scale other than 0, got 0 — set adapter.alpha");
  result.tensors = gguf_lora_tensors(source);
  std::vector<GgufEntry> metadata = {
      gguf_string("general.architecture", family_of_model_type(source.spec->family).gguf_architecture), gguf_string("general.type", "adapter"),
      gguf_string("general.name", source.base_name + " adapter"), gguf_string("adapter.type", "lora"),
      gguf_f32("adapter.lora.alpha", static_cast<float>(alpha))};
  append_facts(metadata, source);
  std::vector<TensorDeclaration> declarations;
  for (const auto& tensor : result.tensors) declarations.push_back({tensor.name, tensor.type, tensor.shape});
  GgufWriter writer(path, metadata, declarations);
  int64_t done = 0;
  for (const auto& tensor : updates) {
    std::vector<float> a, b;
    for (const auto* update : tensor.updates) {
      if (a.empty() || tensor.is_stacked()) append_a(*update, a);
      append_b(*update, alpha, b);
    }
    writer.write(tensor.name() + ".lora_a", std::as_bytes(std::span<const float>(a)));
    writer.write(tensor.name() + ".lora_b", std::as_bytes(std::span<const float>(b)));
    source.report(done += 2, static_cast<int64_t>(result.tensors.size()));
  }
  writer.finish();
  result.path = path;
  result.files = {path};

  auto base_file = shell_word(source.base);
  if (!source.is_gguf()) {
    base_file = "BASE.gguf";
    result.notes.push_back("BASE.gguf stands for the base as a GGUF file: graft export BASE --to gguf:F16 --out BASE.gguf makes it");
  }
  auto command = fmt::format("llama-server -m {} --lora {} -c {}", base_file, shell_word(path), std::min<int64_t>(2048, source.spec->max_positions));
  if (source.chat_template) {
    const auto own = load_chat_template(source.base);
    if (!own || own->fingerprint() != source.chat_template->fingerprint()) {
      const std::filesystem::path beside = path.string() + ".jinja";
      write_file_atomic(beside, source.chat_template->source());
      result.files.push_back(beside);
      result.notes.push_back("the adapter was trained with another chat template than the base's own: serve it with the one written beside it");
      command += " --chat-template-file " + shell_word(beside);
    }
  }
  result.serve = {command};
}

}  // namespace graft
