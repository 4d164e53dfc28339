#include "data/rows/rewritten_turns.h"

#include <algorithm>

#include <fmt/format.h>

#include "data/templates/turn_stability.h"
#include "kernels/common/error.h"

namespace graft {

std::optional<DatasetFinding> rewritten_turns(const TemplateContext& context, const DatasetSplit& split) {
  if (!context.chat_template || !context.chat_template->has_generation_blocks()) return std::nullopt;
  DatasetFinding finding{DatasetFinding::Severity::kNote, "rewritten_turns", "", {}};
  for (const auto& row : split.rows) {
    if (row.kind != RowKind::kConversation) continue;
    const auto& messages = row.json.at("messages");
    const auto answers = std::count_if(messages.begin(), messages.end(), [](const auto& message) { return message.value("role", "") == "assistant"; });
    if (answers < 2) continue;
    try {
      for (const auto& turn : turn_stability(context, row.json)) {
        if (!turn.stable) finding.places.push_back(fmt::format("{}: message {}", row_place(row), turn.message + 1));
      }
    } catch (const UserError&) {
      // Where turns cannot be told apart by rendering, the generation blocks still say what is trained.
    }
  }
  if (finding.places.empty()) return std::nullopt;
  finding.message = fmt::format("{}: the chat template writes {} earlier answers in another way once later turns follow; they are trained as the whole conversation shows them",
                                split.name, finding.places.size());
  return finding;
}

}  // namespace graft
