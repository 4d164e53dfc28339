// The validation rows that data.validation_fraction takes out of the training rows.
#pragma once
#include <cstdint>
#include <vector>

#include "data/rows/dataset.h"

namespace graft {

// Indices of the rows for validation, ascending. Within each label (rows without one are one label) the texts are taken in the
// order of the SHA-256 of their normalised text until round(fraction * rows of the label) rows are reached; remainders go to
// the labels with the largest ones, so that the total is round(fraction * rows) where whole texts allow it. Rows with equal
// normalised text land on one side; each label keeps a text for training. A function of the set of rows alone: not of their
// order, not of a seed. fraction: 0 <= fraction < 1. Throws UserError outside, and when it leaves no row for validation.
std::vector<int64_t> validation_rows(const std::vector<Row>& rows, double fraction);

}  // namespace graft
