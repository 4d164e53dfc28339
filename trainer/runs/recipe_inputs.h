// What a recipe's data section says, as the data library takes it: one reading for training, evaluation and chat.
#pragma once
#include <filesystem>
#include <vector>

#include "data/rows/dataset.h"
#include "data/templates/conversation.h"
#include "trainer/recipe/recipe.h"

namespace graft {

SourceOptions source_options(const DataSource& source);
std::vector<SourceOptions> source_options(const std::vector<DataSource>& sources);

// Tokenizer and chat template of the model `base`, with template, arguments and date of `data`; no weights are read. The date "auto" is
// SOURCE_DATE_EPOCH, else today at 00:00 UTC, so that two runs of a day render the same text. Errors: a template file that cannot be read,
// a date that is not YYYY-MM-DD.
TemplateContext template_context(const std::filesystem::path& base, const DataOptions& data);

}  // namespace graft
