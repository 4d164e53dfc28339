// A teacher beside the student: a frozen model that reads the student's rows, token for token. It has no gradient, and no more of it lies in memory than its weights
// and one layer's activations.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "trainer/adapters/adapter_set.h"
#include "trainer/distillation/teacher_signals.h"
#include "trainer/models/batch.h"
#include "trainer/recipe/recipe.h"
#include "trainer/runs/loaded_model.h"

namespace graft {

// The weights that the options name, with their adapter.
LoadedModel load_teacher(const TeacherOptions& options);

// Of its weights and adapter in memory.
int64_t bytes_of_weights(const LoadedModel& model);

class TeacherModel {
 public:
  // Loads it. UserError where its tokens are not the student's: ids of one must never be read as the other's. The student must outlive this.
  TeacherModel(const TeacherOptions& options, const Decoder& student, const Tokenizer& student_tokenizer);
  // teacher.model self: the student with its adapters off. Both must outlive this.
  TeacherModel(const Decoder& student, AdapterSet& student_adapters);

  // From here on signals() hold the residual stream after these layers too.
  void keep_states_after(std::vector<int64_t> layers) { layers_ = std::move(layers); }

  // Normed hidden states [M, C] of the batch's taught_tokens().
  at::Tensor hidden(const Batch& batch, std::vector<at::Tensor>* states_MC = nullptr) const;
  TeacherSignals signals(const Batch& batch) const;
  // Its head over the tokens that both have.
  LinearHead head() const { return {own_head_ ? *own_head_ : *decoder().head().weight, decoder().spec().logit_softcap}; }

  void set_device(c10::Device device);
  const Decoder& decoder() const { return loaded_ ? *loaded_->decoder : student_; }
  int64_t num_bytes() const;                 // of weights that lie in memory beside the student's
  const std::string& note() const { return note_; }   // of vocabularies that differ in their ends; else empty

 private:
  const Decoder& student_;
  AdapterSet* student_adapters_ = nullptr;   // self
  std::optional<LoadedModel> loaded_;        // not of self
  std::unique_ptr<FrozenWeight> own_head_, student_head_;   // cut to the tokens that both have
  std::string note_;
  std::vector<int64_t> layers_;
};

// The taught tokens' normed hidden states, without a graph. states_MC: their residual stream after each of `layers`.
at::Tensor taught_hidden(const Decoder& decoder, const Batch& batch, const std::vector<int64_t>& layers = {}, std::vector<at::Tensor>* states_MC = nullptr);

}  // namespace graft
