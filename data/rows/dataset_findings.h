// What `plan` says about the data.
#pragma once
#include <vector>

#include "data/rows/open_dataset.h"

namespace graft {

SplitStatistics statistics_of(const DatasetSplit& split, const Sequences& sequences, OverLong over_long);
// Over-long rows, rows without targets, cut documents, prompts that cannot be trained on.
void add_length_findings(const DatasetSplit& split, const Sequences& sequences, const DatasetRequest& request,
                         std::vector<DatasetFinding>& findings);
// Duplicates, leaks, labels; dataset.duplicates is filled.
void add_duplicate_findings(const Dataset& dataset, std::vector<DatasetFinding>& findings);

}  // namespace graft
