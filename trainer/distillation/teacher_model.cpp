#include "trainer/distillation/teacher_model.h"

#include <algorithm>

#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include "data/teacher_signals/vocabulary_match.h"
#include "kernels/common/error.h"

namespace graft {

namespace {

// The first rows of a head: a view.
std::unique_ptr<FrozenWeight> leading_rows(const FrozenWeight& head, int64_t rows) {
  return rows == head.rows() ? nullptr : std::make_unique<FrozenWeight>(head.type(), rows, head.columns(), head.row(0), nullptr);
}

// Adapters switched off for as long as this lives.
class WithoutAdapters {
 public:
  explicit WithoutAdapters(AdapterSet* adapters) : adapters_(adapters) { if (adapters_) adapters_->set_enabled(false); }
  ~WithoutAdapters() { if (adapters_) adapters_->set_enabled(true); }
  WithoutAdapters(const WithoutAdapters&) = delete;

 private:
  AdapterSet* adapters_;
};

}  // namespace

at::Tensor taught_hidden(const Decoder& decoder, const Batch& rows, const std::vector<int64_t>& layers, std::vector<at::Tensor>* states_MC) {
  const c10::AutoGradMode no_gradient(false);
  auto batch = decoder.may_share_prefix(rows) ? share_prefix(rows) : rows;
  batch.dropout_seed = 0;
  batch.observer = nullptr;
  LayerStream stream{decoder.embed(batch), {}};
  const auto index_M = at::tensor(batch.taught_tokens(), at::kLong).to(stream.x_NC.device());
  if (states_MC) states_MC->resize(layers.size());
  for (int64_t layer = 0; layer < decoder.num_layers(); ++layer) {
    stream = decoder.run_layer(layer, stream, batch);
    for (size_t i = 0; states_MC && i < layers.size(); ++i) {
      if (layers[i] == layer) (*states_MC)[i] = stream.x_NC.index_select(0, index_M);
    }
  }
  return decoder.final_norm(stream.x_NC).index_select(0, index_M);
}

LoadedModel load_teacher(const TeacherOptions& options) { return load_model(options.model, options.adapter.value_or(""), options.compute, nullptr, options.quantize_base); }

TeacherModel::TeacherModel(const Decoder& student, AdapterSet& student_adapters) : student_(student), student_adapters_(&student_adapters) {}

TeacherModel::TeacherModel(const TeacherOptions& options, const Decoder& student, const Tokenizer& student_tokenizer) : student_(student) {
  loaded_ = load_teacher(options);
  const auto match = match_vocabularies(student_tokenizer, *loaded_->context.tokenizer);
  if (match.kind == VocabularyMatch::Kind::kDifferent) {
    fail("teacher", "expected a teacher with the student's tokens, got {}: {} — take objective.divergence: spans, a teacher of the same tokenizer, or a student of the teacher's family", loaded_->files.base.filename().string(),
         match.difference);
  }
  const int64_t theirs = decoder().head().rows(), ours = student.head().rows(), both = std::min(theirs, ours);
  own_head_ = leading_rows(*decoder().head().weight, both);
  student_head_ = leading_rows(*student.head().weight, both);
  if (theirs != ours) note_ = fmt::format("teacher: {} tokens to the student's {}: distributions are compared over the first {}, which both have", theirs, ours, both);
}

at::Tensor TeacherModel::hidden(const Batch& batch, std::vector<at::Tensor>* states_MC) const {
  const WithoutAdapters base(student_adapters_);
  return taught_hidden(decoder(), batch, layers_, states_MC);
}

TeacherSignals TeacherModel::signals(const Batch& batch) const {
  TeacherSignals signals;
  signals.hidden_MC = hidden(batch, &signals.states_MC);
  signals.head = std::make_shared<WholeHead>(head());
  if (student_head_) signals.student_head = std::make_shared<WholeHead>(LinearHead(*student_head_, student_.spec().logit_softcap));
  return signals;
}

void TeacherModel::set_device(c10::Device device) {
  if (!loaded_) return;
  loaded_->decoder->set_device(device);
  if (loaded_->adapters) loaded_->adapters->set_device(device);
  if (loaded_->served) loaded_->served->update();
  for (const auto& [head, compute] : {std::pair{own_head_.get(), decoder().compute()}, std::pair{student_head_.get(), student_.compute()}}) {
    if (!head) continue;
    if (device.is_cpu()) head->drop_device_copy();
    else head->to_device(device, scalar_type(compute), DeviceForm::kDecoded);
  }
}

int64_t TeacherModel::num_bytes() const { return loaded_ ? bytes_of_weights(*loaded_) : 0; }

int64_t bytes_of_weights(const LoadedModel& model) {
  int64_t bytes = 0;
  for (const auto& weight : model.decoder->weights()) bytes += static_cast<int64_t>(weight.tensor->bytes.size());
  if (model.adapters) bytes += model.adapters->num_parameters() * 12;
  if (model.served) bytes += model.served->num_bytes();
  return bytes;
}

}  // namespace graft
