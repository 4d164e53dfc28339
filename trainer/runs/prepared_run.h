// Everything a recipe names, loaded and checked: what `plan` shows and what `train` starts from.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/rows/open_dataset.h"
#include "data/teacher_signals/teacher_store.h"
#include "data/templates/conversation.h"
#include "trainer/adapters/adapter_set.h"
#include "trainer/distillation/span_teacher.h"
#include "trainer/exports/served_weights.h"
#include "trainer/models/model_files.h"
#include "trainer/report/file_hashes.h"
#include "trainer/parallel/process_group.h"
#include "trainer/parallel/sharded_base.h"
#include "trainer/recipe/recipe.h"
#include "trainer/report/manifest.h"
#include "trainer/runs/demonstration.h"
#include "trainer/runs/device_choice.h"
#include "trainer/steps/micro_batch.h"

namespace graft {

// teacher.signal answers: what became of the rows of train and validation.
struct AnswerCounts {
  int64_t kept = 0, missing = 0;
  int64_t unfinished = 0, wrong = 0;   // left out: did not end by themselves; are not the row's own (teacher.answers.keep right)
};

struct PreparedRun {
  std::shared_ptr<ProcessGroup> group = std::make_shared<ProcessGroup>();   // who trains together
  Recipe recipe;
  ModelFiles files;
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<AdapterSet> adapters;
  std::unique_ptr<ServedWeights> served;  // adapter.quantization_aware: once updated, what adapted layers multiply with
  std::unique_ptr<ShardedBase> sharded;   // run.shard_base, while training
  ModelFiles teacher_files;               // objective.kind distill; of self the student's
  std::shared_ptr<const FileHashes> teacher_hashes;
  std::unique_ptr<TeacherModel> teacher;  // beside the student, or for `graft teach`
  std::optional<Demonstration> demonstration;   // that it is shown
  std::unique_ptr<HiddenMatching> hidden_matching;   // objective.hidden_states
  std::unique_ptr<SpanTeacher> span_teacher;   // in its place, with objective.divergence spans
  std::unique_ptr<TeacherStore> teacher_store;   // teacher.signal cached: what `graft teach` wrote; null where it has not
  std::string no_teacher_store;           // why
  AnswerCounts answers;
  std::shared_ptr<const FileHashes> base_hashes;   // of the base's weights, when PrepareOptions asks for them
  TemplateContext context;
  Dataset dataset;
  int64_t steps_per_epoch = 0, total_steps = 0;
  double learning_rate = 0;
  int64_t threads = 1;
  DeviceChoice device;                    // where the steps run; everything is loaded on the CPU
  Recompute recompute = Recompute::kNone;
  std::vector<std::string> notes;         // decisions made for `auto`, and Python files that are not executed: lines of the plan

  // After every change of the adapters' values: the weights that they are rounded into, where the recipe trains through a rounding.
  void adapters_changed() const {
    if (served) served->update();
  }
  // Moves decoder and adapters. Evaluation by decoding, exports and certificates need the CPU.
  void set_device(c10::Device where);
  // Rows of a step and their micro-batches, a pure function of (seed, step).
  std::vector<int64_t> sequences_of_step(int64_t step) const;
  // Brings model and adapters to the device that trains, sharded where the recipe says so; and back to the CPU, whole.
  void start_on_device();
  void return_to_cpu();
  std::vector<std::vector<int64_t>> micro_batches(const std::vector<int64_t>& sequences) const;
  // Tokens of a micro-batch, and the blocks of rows that its loss takes (kernels/linear_cross_entropy) with a buffer of that size; null: the device's.
  struct Work {
    int64_t tokens = 0, head_blocks = 0;
  };
  Work work_of(const std::vector<TokenSpan>& rows, std::optional<int64_t> loss_buffer_bytes = std::nullopt) const;
  Batch batch_of(const DatasetSplit& split, const std::vector<int64_t>& sequences, uint64_t dropout_seed = 0) const;
  // Of any rows; sequences: what dropout's random numbers are keyed by.
  Batch batch_of(const std::vector<TokenSpan>& rows, const std::vector<int64_t>& sequences, uint64_t dropout_seed = 0) const;
  // Which of a row's tokens the teacher speaks of: the supervised ones, or all.
  std::vector<uint8_t> taught_mask(const TokenSpan& row) const;
  int64_t count_taught(const std::vector<TokenSpan>& rows) const;
  // What the teacher says of the taught tokens of rows, which `batch` holds and `sources` were before they were tokens; nothing without one.
  std::optional<TeacherSignals> teacher_signals(const std::vector<TokenSpan>& rows, const std::vector<const Row*>& sources, const Batch& batch, bool on_policy = false) const;
  // What a teacher beside the student reads in place of `batch`.
  Batch teacher_batch(const std::vector<TokenSpan>& rows, const std::vector<const Row*>& sources, const Batch& batch, bool on_policy = false) const;
};

struct PrepareOptions {
  bool hash_base = false;   // for manifest_of: meanwhile, on another thread
  bool teaches = false;     // loads the teacher, also where training would read what it said
  int64_t threads = 0;   // where the recipe says auto; 0: the cores of this process
  std::shared_ptr<ProcessGroup> group = std::make_shared<ProcessGroup>();
  std::function<void(const std::string&)> log;   // one line per stage
  std::function<void(const std::string& stage, int64_t done, int64_t total)> progress;
};

// Loads model, adapter set, tokenizer, template and data. Of the processes on a machine the first one fills the token store, then the others read it.
PreparedRun prepare_run(const Recipe& recipe, const PrepareOptions& options);

// SHA-256 of everything that decides the run's bytes.
Manifest manifest_of(const PreparedRun& run);

// Tokens of the largest micro-batch of the first epoch.
int64_t largest_micro_batch(const PreparedRun& run);
// Elements between the halves of the widest channel, for one token: the MLP's width; of experts all that a token goes through.
int64_t widest_channel(const DecoderSpec& spec);
// Elements a token and layer that latent attention keeps for backward beside what all attention keeps.
int64_t latent_width(const DecoderSpec& spec);
// Bytes of what says which keys tokens see: of the layer at work, of those that hand it on and, with kept graphs, of all that choose.
int64_t selected_key_bytes(const PreparedRun& run, int64_t tokens, Recompute recompute);

// Bytes of memory that training is expected to need at its peak, and of what: lines for the plan.
struct MemoryEstimate {
  int64_t base = 0, served = 0, teacher = 0, adapters = 0, activations = 0, scratch = 0, program = 0;
  int64_t total() const { return base + served + teacher + adapters + activations + scratch + program; }
};
MemoryEstimate estimate_memory(const PreparedRun& run, Recompute recompute);

}  // namespace graft
