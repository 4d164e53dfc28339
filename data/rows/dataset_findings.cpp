#include "data/rows/dataset_findings.h"

#include <algorithm>
#include <array>
#include <utility>

#include "data/rows/row_problems.h"

namespace graft {
namespace {

using Severity = DatasetFinding::Severity;

std::string rows_text(size_t count) { return fmt::format("{} row{}", count, count == 1 ? "" : "s"); }

std::array<const DatasetSplit*, 3> splits_of(const Dataset& dataset) {
  return {&dataset.train, &dataset.validation, &dataset.test};
}

std::string place_of(const Dataset& dataset, const RowPlace& place) {
  return row_place(splits_of(dataset)[static_cast<size_t>(place.split)]->rows[static_cast<size_t>(place.row)]);
}

void add_over_long(const DatasetSplit& split, const DatasetRequest& request, std::vector<DatasetFinding>& findings) {
  if (split.over_long.empty()) return;
  const char* done = request.over_long == OverLong::kDrop ? "dropped (data.over_long: drop)"
                     : request.over_long == OverLong::kTruncate
                         ? "cut to it (data.over_long: truncate)"
                         : "refused (data.over_long: error): raise data.max_tokens, or choose truncate or drop";
  DatasetFinding finding{request.over_long == OverLong::kError ? Severity::kError : Severity::kWarning,
                         "over_long",
                         fmt::format("{} of {} longer than data.max_tokens {}: {}", rows_text(split.over_long.size()),
                                     split.name, request.max_tokens, done),
                         {}};
  for (const OverLongRow& row : split.over_long) {
    finding.places.push_back(fmt::format("{}: {} tokens", row_place(split.rows[static_cast<size_t>(row.row)]), row.length));
  }
  findings.push_back(std::move(finding));
}

// matches of (row split, other split) as a finding, if there are any.
void add_matches(const Dataset& dataset, const std::vector<TextMatch>& matches, int64_t split, int64_t other, Severity severity,
                 const char* code, const std::string& what, std::vector<DatasetFinding>& findings) {
  DatasetFinding finding{severity, code, "", {}};
  for (const TextMatch& match : matches) {
    if (match.row.split != split || match.other.split != other) continue;
    const std::string similarity = match.similarity < 1 ? fmt::format(" (similarity {:.2f})", match.similarity) : "";
    finding.places.push_back(
        fmt::format("{} = {}{}", place_of(dataset, match.row), place_of(dataset, match.other), similarity));
  }
  if (finding.places.empty()) return;
  finding.message =
      fmt::format("{} of {} {} {}", rows_text(finding.places.size()), splits_of(dataset)[static_cast<size_t>(split)]->name,
                  what, split == other ? "within it" : splits_of(dataset)[static_cast<size_t>(other)]->name);
  findings.push_back(std::move(finding));
}

void add_conflicts(const Dataset& dataset, std::vector<DatasetFinding>& findings) {
  DatasetFinding finding{Severity::kWarning, "two_labels", "", {}};
  for (const LabelConflict& conflict : dataset.duplicates.conflicts) {
    std::string rows;
    for (const RowPlace& place : conflict.rows) {
      const Row& row = splits_of(dataset)[static_cast<size_t>(place.split)]->rows[static_cast<size_t>(place.row)];
      rows += fmt::format("{}{} \"{}\"", rows.empty() ? "" : ", ", row_place(row), *row.label);
    }
    finding.places.push_back(std::move(rows));
  }
  if (finding.places.empty()) return;
  finding.message = fmt::format("{} text{} with two labels: the model cannot learn both", finding.places.size(),
                                finding.places.size() == 1 ? "" : "s");
  findings.push_back(std::move(finding));
}

void add_unknown_labels(const Dataset& dataset, std::vector<DatasetFinding>& findings) {
  const auto& known = dataset.train.statistics.rows_per_label;
  if (known.empty()) return;
  for (const DatasetSplit* split : {&dataset.validation, &dataset.test}) {
    DatasetFinding finding{Severity::kWarning, "unknown_label", "", {}};
    for (const auto& [label, count] : split->statistics.rows_per_label) {
      if (!known.contains(label))
        finding.places.push_back(fmt::format("\"{}\": {}", label, rows_text(static_cast<size_t>(count))));
    }
    if (finding.places.empty()) continue;
    finding.message = fmt::format("{} label{} of {} never stand in train", finding.places.size(),
                                  finding.places.size() == 1 ? "" : "s", split->name);
    findings.push_back(std::move(finding));
  }
}

}  // namespace

SplitStatistics statistics_of(const DatasetSplit& split, const Sequences& sequences, OverLong over_long) {
  SplitStatistics statistics;
  statistics.rows = static_cast<int64_t>(split.rows.size());
  statistics.sequences = sequences.tokens.num_rows();
  for (int64_t sequence = 0; sequence < statistics.sequences; ++sequence) {
    const int64_t length = sequences.tokens.length(sequence);
    statistics.tokens += length;
    statistics.targets += count_targets(sequences.tokens.row(sequence).supervised);
    statistics.longest = std::max(statistics.longest, length);
    size_t bin = 0;
    while ((int64_t{16} << bin) < length) ++bin;
    while (statistics.lengths.size() <= bin) statistics.lengths.push_back({int64_t{16} << statistics.lengths.size(), 0});
    ++statistics.lengths[bin].count;
  }
  const auto num_over_long = static_cast<int64_t>(sequences.over_long.size());
  statistics.dropped_rows = over_long == OverLong::kDrop ? num_over_long : 0;
  statistics.truncated_rows = over_long == OverLong::kTruncate ? num_over_long : 0;
  statistics.cut_documents = static_cast<int64_t>(sequences.cut_documents.size());
  for (const Row& row : split.rows) {
    if (row.label) ++statistics.rows_per_label[*row.label];
  }
  return statistics;
}

void add_length_findings(const DatasetSplit& split, const Sequences& sequences, const DatasetRequest& request,
                         std::vector<DatasetFinding>& findings) {
  add_over_long(split, request, findings);
  const auto add = [&](Severity severity, const char* code, const std::vector<int64_t>& rows, const std::string& what) {
    if (rows.empty()) return;
    DatasetFinding finding{severity, code, fmt::format("{} of {} {}", rows_text(rows.size()), split.name, what), {}};
    for (const int64_t row : rows) finding.places.push_back(row_place(split.rows[static_cast<size_t>(row)]));
    findings.push_back(std::move(finding));
  };
  add(Severity::kError, "nothing_supervised", sequences.without_targets, "with no token to learn from within data.max_tokens");
  std::vector<int64_t> prompts;
  for (size_t row = 0; row < split.rows.size(); ++row) {
    if (split.rows[row].kind == RowKind::kPrompt) prompts.push_back(static_cast<int64_t>(row));
  }
  if (!request.prompts_may_train)
    add(Severity::kError, "nothing_supervised", prompts, "of format prompts, which has no answers to learn from");
  add(Severity::kNote, "cut_documents", sequences.cut_documents,
      fmt::format("of format text cut into windows of data.max_tokens {}, {} sequences in all", request.max_tokens,
                  sequences.tokens.num_rows()));
  if (!split.rows.empty() && sequences.tokens.num_rows() == 0) {
    findings.push_back({Severity::kError, "nothing_supervised", fmt::format("no row of {} is left", split.name), {}});
  }
}

void add_duplicate_findings(const Dataset& dataset, std::vector<DatasetFinding>& findings) {
  const DuplicateFindings& found = dataset.duplicates;
  for (int64_t split = 0; split < 3; ++split) {
    for (int64_t other = 0; other <= split; ++other) {
      const bool is_leak = split != other;
      // A validation text that was trained on misleads the choice of checkpoint; a test text that was is reported beside the
      // score.
      const Severity severity = split == 1 && is_leak ? Severity::kError : is_leak ? Severity::kWarning : Severity::kNote;
      const char* code = !is_leak ? "duplicates" : split == 1 ? "validation_leak" : "test_leak";
      add_matches(dataset, found.exact, split, other, severity, code,
                  is_leak ? "whose text also stands in" : "with a text that stands before", findings);
      add_matches(dataset, found.near, split, other, is_leak ? Severity::kWarning : Severity::kNote, "near_duplicates",
                  "with a near-duplicate (word 5-grams, Jaccard above 0.5) in", findings);
    }
  }
  if (!found.near_was_searched) {
    findings.push_back({Severity::kNote,
                        "near_duplicates",
                        fmt::format("near-duplicates were not searched: more than {} word 5-grams", kMaxShingles),
                        {}});
  }
  add_conflicts(dataset, findings);
  add_unknown_labels(dataset, findings);
}

}  // namespace graft
