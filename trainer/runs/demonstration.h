// A teacher that is shown more than the student (context distillation; self-distillation, arXiv 2601.19897): messages that stand before a row's own for it alone, such as
// instructions and worked examples. The student learns to answer as if it had read them.
#pragma once
#include <filesystem>
#include <optional>
#include <vector>

#include "data/rows/dataset.h"
#include "data/rows/packing.h"
#include "data/templates/conversation.h"
#include "trainer/models/batch.h"

namespace graft {

struct Demonstration {
  nlohmann::ordered_json messages;
  std::string sha256;   // of the file
};

// {"messages": [...]}: a system message first or none, then whole turns. UserError for anything else.
Demonstration read_demonstration(const std::filesystem::path& file);

// `rows` as the teacher reads them: the demonstration before each, the same supervised tokens in the same order. sources: what the rows were made of. on_policy: the student wrote the
// answers, which are taken as they are. UserError that names a row whose answers get other tokens so.
Batch demonstrated_batch(const TemplateContext& context, const Demonstration& demonstration, const std::vector<TokenSpan>& rows, const std::vector<const Row*>& sources, bool on_policy);

}  // namespace graft
