// Conversations whose chat template writes an earlier answer in another way once later turns follow (drops its think block, say).
#pragma once
#include <optional>

#include "data/rows/open_dataset.h"

namespace graft {

// Finding "rewritten_turns" with the rows and messages of a split; none where there are none. A template without generation blocks refuses such rows when
// they are encoded (conversation.h), so that only templates with them are looked at: there the author says what is trained, and it is what the conversation
// as a whole shows, not what was once served. Renders every row of several answers, turn by turn.
std::optional<DatasetFinding> rewritten_turns(const TemplateContext& context, const DatasetSplit& split);

}  // namespace graft
