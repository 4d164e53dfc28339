// The one door to the data of a run: sources to splits of token sequences, with what `plan` shows and what makes it refuse.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "data/rows/dataset.h"
#include "data/rows/duplicates.h"
#include "data/rows/encode.h"

namespace graft {

struct DatasetRequest {
  std::vector<SourceOptions> train, validation, test;
  std::vector<SourceOptions> general;   // of another kind: neither trained on nor searched for duplicates
  double validation_fraction = 0;  // of train; not together with validation
  TemplateContext context;
  int64_t max_tokens = 1024;
  OverLong over_long = OverLong::kError;
  bool prompts_may_train = false;  // rows of format prompts in train: a teacher writes their answers (distillation)
  std::function<void(std::vector<Row>&)> rewrite_rows = {};   // of train and validation once they are read and split: a teacher's answers in place of their own
  std::filesystem::path cache;     // folder of the token stores; empty: none
  int threads = 0;                 // 0: as the machine has
  std::function<void(const std::string& stage, int64_t done, int64_t total)> progress = {};  // stage: "tokenising train"
  std::function<void(const std::string&)> log = {};
};

// One line of the length histogram: sequences of at most `up_to` tokens, and longer than the line before.
struct LengthBin {
  int64_t up_to = 0, count = 0;
};

struct SplitStatistics {
  int64_t rows = 0, sequences = 0;
  int64_t tokens = 0, targets = 0;  // targets: supervised tokens that something predicts
  int64_t longest = 0;              // sequence, in tokens
  int64_t dropped_rows = 0, truncated_rows = 0, cut_documents = 0;
  std::vector<LengthBin> lengths;  // 16, 32, 64, ...
  std::map<std::string, int64_t> rows_per_label;
};

// A split, ready to pack: sequence i of `tokens` belongs to rows[row_of[i]]. A row has one sequence; a document has one per
// window; a dropped row none. pack_rows and rows_of_step count sequences.
struct DatasetSplit {
  std::string name;  // train | validation | test
  std::vector<Row> rows;
  TokenTable tokens;
  std::vector<int64_t> row_of, lengths;  // per sequence
  std::vector<OverLongRow> over_long;    // rows beyond max_tokens, whatever was done with them
  SplitStatistics statistics;

  int64_t num_sequences() const { return tokens.num_rows(); }
  const Row& row_of_sequence(int64_t sequence) const {
    return rows[static_cast<size_t>(row_of[static_cast<size_t>(sequence)])];
  }
  std::vector<const Row*> rows_of(const std::vector<int64_t>& sequences) const;
  // Sequences as make_packed takes them, with their rows' weights.
  std::vector<TokenSpan> spans(const std::vector<int64_t>& sequences) const;
};

// error: the run is refused. Codes: over_long, nothing_supervised, validation_leak, test_leak, near_duplicates, duplicates,
// two_labels, unknown_label, cut_documents.
struct DatasetFinding {
  enum class Severity { kNote, kWarning, kError };
  Severity severity = Severity::kNote;
  std::string code, message;        // one line
  std::vector<std::string> places;  // "train.csv:17 ..." of the rows, all of them
};

struct Dataset {
  DatasetSplit train, validation, test, general;
  DuplicateFindings duplicates;  // splits 0, 1, 2
  std::vector<DatasetFinding> findings;

  bool has_errors() const;
  // Throws one UserError with every finding of severity error, each with up to 20 places.
  void require_usable() const;
};

// Reads, splits, encodes (through the token store) and inspects. What is wrong with the files themselves is thrown (see
// read_rows and encode_rows); what makes a run bad is a finding, so that `plan` can show all of it.
Dataset open_dataset(const DatasetRequest& request);

}  // namespace graft
