#include "trainer/runs/demonstration.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include "checkpoints/hash.h"
#include "kernels/common/error.h"
#include "trainer/models/packed_batch.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

bool is_role(const Json& message, const char* role) { return message.is_object() && message.value("role", "") == role; }

// The row's own system message gives way to the demonstration's.
Json with_demonstration(const Json& row, const Json& demonstration) {
  Json result = row;
  Json messages = demonstration;
  for (const auto& message : row.at("messages")) {
    if (!(is_role(message, "system") && is_role(demonstration.front(), "system"))) messages.push_back(message);
  }
  result["messages"] = std::move(messages);
  return result;
}

std::vector<int32_t> supervised_ids(std::span<const int32_t> ids, std::span<const uint8_t> supervised) {
  std::vector<int32_t> chosen;
  for (size_t i = 1; i < ids.size(); ++i) {
    if (supervised[i]) chosen.push_back(ids[i]);
  }
  return chosen;
}

EncodedText demonstrated(const TemplateContext& context, const Demonstration& demonstration, const TokenSpan& row, const Row& source, bool on_policy) {
  if (source.kind == RowKind::kText) fail("teach", "expected conversations with teacher.demonstration, got one of format text ({}) — leave it out", row_place(source));
  EncodedText encoded;
  if (on_policy) {
    encoded = encode_prompt(context, with_demonstration(prompt_of(source), demonstration.messages));
    for (size_t i = 0; i < row.ids.size(); ++i) {
      if (row.supervised[i]) encoded.ids.push_back(row.ids[i]);
    }
    encoded.supervised.resize(encoded.ids.size(), 1);
    return encoded;
  }
  encoded = encode_conversation(context, with_demonstration(source.json, demonstration.messages));
  // The demonstration's own answers are not learnt: of all supervised tokens the row's are the last ones.
  const auto wanted = supervised_ids(row.ids, row.supervised);
  const auto found = supervised_ids(encoded.ids, encoded.supervised).size();
  auto surplus = found - std::min(wanted.size(), found);
  for (size_t i = 0; i < encoded.supervised.size() && surplus > 0; ++i) {
    if (i > 0 && encoded.supervised[i]) --surplus;
    encoded.supervised[i] = 0;
  }
  if (supervised_ids(encoded.ids, encoded.supervised) != wanted) {
    fail("teach", "expected a row's answer to have the same tokens behind teacher.demonstration, got others ({}) — was the row cut by data.max_tokens, or does the template write later turns otherwise?",
         row_place(source));
  }
  return encoded;
}

}  // namespace

Demonstration read_demonstration(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  const auto json = stream ? Json::parse(text.str(), nullptr, /*allow_exceptions=*/false) : Json();
  const bool has_messages = json.is_object() && json.contains("messages") && json["messages"].is_array() && !json["messages"].empty();
  const auto is_message = [](const Json& message) { return message.is_object() && message.contains("role") && message.contains("content"); };
  if (!has_messages || !std::all_of(json["messages"].begin(), json["messages"].end(), is_message) || is_role(json["messages"].back(), "user")) {
    fail("teach", "expected teacher.demonstration to be a JSON file {{\"messages\": [{{\"role\", \"content\"}}, ...]}} that ends with a system message or an answer, got another ({})", file.string());
  }
  return {json["messages"], sha256(text.str())};
}

Batch demonstrated_batch(const TemplateContext& context, const Demonstration& demonstration, const std::vector<TokenSpan>& rows, const std::vector<const Row*>& sources, bool on_policy) {
  std::vector<EncodedText> encoded;
  for (size_t i = 0; i < rows.size(); ++i) encoded.push_back(demonstrated(context, demonstration, rows[i], *sources[i], on_policy));
  std::vector<TokenSpan> spans;
  for (const auto& row : encoded) spans.push_back({row.ids, row.supervised, 1});
  return packed_batch(spans);
}

}  // namespace graft
