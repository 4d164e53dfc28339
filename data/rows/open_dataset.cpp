#include "data/rows/open_dataset.h"

#include <algorithm>
#include <iterator>

#include "data/rows/dataset_findings.h"
#include "data/rows/row_problems.h"
#include "data/rows/split.h"
#include "data/stores/token_store.h"

namespace graft {
namespace {

std::vector<Row> read_sources(const std::vector<SourceOptions>& sources) {
  std::vector<Row> rows;
  for (const SourceOptions& source : sources) {
    auto more = read_rows(source);
    std::move(more.begin(), more.end(), std::back_inserter(rows));
  }
  return rows;
}

// Takes the rows at `indices` (ascending) out of `rows`.
std::vector<Row> take(std::vector<Row>& rows, const std::vector<int64_t>& indices) {
  std::vector<Row> taken, left;
  auto next = indices.begin();
  for (size_t row = 0; row < rows.size(); ++row) {
    const bool is_taken = next != indices.end() && *next == static_cast<int64_t>(row);
    if (is_taken) ++next;
    (is_taken ? taken : left).push_back(std::move(rows[row]));
  }
  rows = std::move(left);
  return taken;
}

void encode_split(DatasetSplit& split, const DatasetRequest& request, std::vector<DatasetFinding>& findings) {
  const auto total = static_cast<int64_t>(split.rows.size());
  StoreOptions store{.cache = request.cache, .threads = request.threads, .log = request.log};
  if (request.progress) store.progress = [&](int64_t done) { request.progress("tokenising " + split.name, done, total); };
  Sequences sequences = limit_lengths(split.rows, encode_through_store(request.context, split.rows, store), request.max_tokens,
                                      request.over_long);
  split.over_long = sequences.over_long;
  split.statistics = statistics_of(split, sequences, request.over_long);
  add_length_findings(split, sequences, request, findings);
  split.tokens = std::move(sequences.tokens);
  split.row_of = std::move(sequences.row_of);
  for (int64_t sequence = 0; sequence < split.num_sequences(); ++sequence)
    split.lengths.push_back(split.tokens.length(sequence));
}

}  // namespace

std::vector<const Row*> DatasetSplit::rows_of(const std::vector<int64_t>& sequences) const {
  std::vector<const Row*> chosen;
  for (const int64_t sequence : sequences) chosen.push_back(&row_of_sequence(sequence));
  return chosen;
}

std::vector<TokenSpan> DatasetSplit::spans(const std::vector<int64_t>& sequences) const {
  std::vector<TokenSpan> chosen;
  for (const int64_t sequence : sequences) {
    chosen.push_back(tokens.row(sequence));
    chosen.back().weight = static_cast<float>(row_of_sequence(sequence).weight);
  }
  return chosen;
}

bool Dataset::has_errors() const {
  return std::any_of(findings.begin(), findings.end(),
                     [](const DatasetFinding& finding) { return finding.severity == DatasetFinding::Severity::kError; });
}

void Dataset::require_usable() const {
  std::string text;
  for (const DatasetFinding& finding : findings) {
    if (finding.severity != DatasetFinding::Severity::kError) continue;
    text += "\n  " + finding.message;
    for (size_t place = 0; place < std::min(finding.places.size(), RowProblems::kShown); ++place)
      text += "\n    " + finding.places[place];
    if (finding.places.size() > RowProblems::kShown)
      text += fmt::format("\n    ... and {} more", finding.places.size() - RowProblems::kShown);
  }
  if (!text.empty())
    fail("data", "expected data that can be trained on, got{}\n— mend the rows or the recipe; `graft plan` lists all of it",
         text);
}

Dataset open_dataset(const DatasetRequest& request) {
  if (request.train.empty() && request.validation.empty() && request.test.empty())
    fail("data", "expected a data source, got none — see data.train");
  if (request.validation_fraction != 0 && !request.validation.empty()) {
    fail("data",
         "expected validation rows or validation_fraction, got both — remove one of data.validation and "
         "data.validation_fraction");
  }
  Dataset dataset;
  dataset.train = {.name = "train", .rows = read_sources(request.train)};
  dataset.validation = {.name = "validation", .rows = read_sources(request.validation)};
  dataset.test = {.name = "test", .rows = read_sources(request.test)};
  dataset.general = {.name = "general", .rows = read_sources(request.general)};
  if (request.validation_fraction != 0)
    dataset.validation.rows = take(dataset.train.rows, validation_rows(dataset.train.rows, request.validation_fraction));
  if (request.rewrite_rows) {
    for (DatasetSplit* split : {&dataset.train, &dataset.validation}) request.rewrite_rows(split->rows);
  }
  for (DatasetSplit* split : {&dataset.train, &dataset.validation, &dataset.test, &dataset.general}) {
    if (!split->rows.empty()) encode_split(*split, request, dataset.findings);
  }
  dataset.duplicates = find_duplicates({&dataset.train.rows, &dataset.validation.rows, &dataset.test.rows});
  add_duplicate_findings(dataset, dataset.findings);
  return dataset;
}

}  // namespace graft
