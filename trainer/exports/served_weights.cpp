#include "trainer/exports/served_weights.h"

#include <cstring>

#include "kernels/common/error.h"
#include "trainer/exports/export.h"
#include "trainer/exports/low_rank_updates.h"

namespace graft {

namespace {

// The export's tensors with their types, without writing it.
ExportResult planned(const Decoder& decoder, const AdapterSet& adapters, const std::filesystem::path& base, const std::string& format) {
  ExportRequest request;
  request.base = base;
  request.decoder = &decoder;
  request.adapters = &adapters;
  request.format = format;
  return plan_export(request);
}

NameColumn column_of(const ExportFormat& format) { return format.kind == ExportFormat::Kind::kGguf ? NameColumn::kGguf : NameColumn::kHub; }

}  // namespace

ServedWeights::ServedWeights(const Decoder& decoder, AdapterSet& adapters, const std::filesystem::path& base, const std::string& format)
    : decoder_(decoder), adapters_(adapters), format_(format) {
  const auto parsed = parse_export_format(format);
  if (!parsed.is_merged()) fail("exports", "expected a merged form to train through, got {} — choose one such as gguf:Q4_K_M", format);
  for (const auto& tensor : planned(decoder, adapters, base, format).tensors) types_[tensor.name] = tensor.type;
  const auto column = column_of(parsed);
  source_.column = decoder.column();
  source_.weights = &decoder.weights();
  source_.updates = low_rank_updates(adapters, nullptr);
  weights_ = std::make_unique<MergedWeights>(source_, column);
  make_places(column);
  for (const auto& tensor : weights_->tensors()) {
    if (tensor.adapted()) take_types(tensor, column);
  }
  for (const auto& matrix : matrices_) num_bytes_ += matrix.num_bytes();
}

ServedWeights::~ServedWeights() {
  for (const auto& matrix : matrices_) matrix.adapter->slot.served.clear();
}

void ServedWeights::make_places(NameColumn column) {
  for (int64_t layer = 0; layer < decoder_.num_layers(); ++layer) {
    for (auto* adapter : adapters_.adapters_of_layer(layer)) {
      if (adapter->slot.dropout > 0) fail("exports", "expected adapter.dropout 0 with adapter.quantization_aware, got {:g} — set it to 0", adapter->slot.dropout);
      for (const auto* rule : adapter->rules) {
        if (adapter->is_bank || rule == adapter->rules.front()) matrices_.push_back({adapter});
        auto& matrix = matrices_.back();
        places_[rule] = {&matrix, matrix.rows, stored_row_of_ours(*rule, column)};
        matrix.rows += rule->shape.at(0);
      }
    }
  }
}

TensorType ServedWeights::type_of(const MergedTensor& tensor) const { return types_.at(weights_->name(tensor)); }

void ServedWeights::take_types(const MergedTensor& tensor, NameColumn column) {
  const auto type = type_of(tensor);
  for (const auto& part : tensor.parts) {
    const auto found = places_.find(part.rule);
    if (found == places_.end()) continue;
    auto& matrix = *found->second.matrix;
    const auto& form = part.rule->form(column);
    const bool cuts_rows = form.transposed || form.column_heads > 0 || form.interleaved > 1;
    if (cuts_rows || matrix.type.value_or(type) != type) {
      fail("exports", "expected every adapted matrix to have its rows, in one type, in {}, got {} {} — leave it out of adapter.targets, or take adapter.quantization_aware out", format_,
           matrix.adapter->module_name, cuts_rows ? "turned or with columns in another order" : fmt::format("in parts of {} and {}", info(*matrix.type).name, info(type).name));
    }
    matrix.type = type;
  }
}

// The export's rows of a tensor, each to its place in ours. Blocks lie along rows, so that they move whole.
void ServedWeights::copy_rows(const MergedTensor& tensor, std::span<const std::byte> bytes) {
  int64_t first_stored = 0;
  for (const auto& part : tensor.parts) {
    const int64_t rows = part.rule->shape.at(0), row_bytes = bytes_of(type_of(tensor), std::vector<int64_t>{part.rule->shape.at(1)}).value();
    if (const auto found = places_.find(part.rule); found != places_.end()) {
      const auto& place = found->second;
      auto* ours = place.matrix->blocks->data() + place.first_row * row_bytes;
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t stored = first_stored + (place.stored_of_ours.empty() ? row : place.stored_of_ours[static_cast<size_t>(row)]);
        std::memcpy(ours + row * row_bytes, bytes.data() + stored * row_bytes, static_cast<size_t>(row_bytes));
      }
    }
    first_stored += rows;
  }
}

void ServedWeights::update() {
  const auto values = adapters_.parameters.detach().cpu().contiguous();
  for (const auto& [rule, update] : low_rank_updates(adapters_, values.const_data_ptr<float>())) source_.updates.at(rule) = update;   // where weights_ points to
  for (auto& matrix : matrices_) {
    if (!matrix.blocks) matrix.blocks = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(matrix.num_bytes()));
    matrix.adapter->slot.served.clear();
  }
  for (const auto& tensor : weights_->tensors()) {
    if (tensor.adapted()) copy_rows(tensor, weights_->bytes(tensor, type_of(tensor)));
  }
  const auto device = adapters_.parameters.device();
  for (const auto& matrix : matrices_) {
    FrozenWeight weight(*matrix.type, matrix.rows, matrix.adapter->inputs, matrix.blocks->data(), matrix.blocks);
    if (!device.is_cpu()) weight.to_device(device, scalar_type(decoder_.compute()));
    matrix.adapter->slot.served.push_back(std::move(weight));
  }
}

std::string ServedWeights::describe() const {
  std::map<std::string_view, int> counts;
  for (const auto& matrix : matrices_) ++counts[info(*matrix.type).name];
  std::string text;
  for (const auto& [name, count] : counts) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, count);
  return text;
}

}  // namespace graft
