// What is supervised: the assistant's tokens and its end token, in every real template.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "data/templates/conversation.h"
#include "data/rows/rewritten_turns.h"
#include "data/templates/turn_stability.h"
#include "kernels/common/error.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/data/templates/golden_context.h"
#include "tests/support/error_of.h"

namespace graft {
namespace {

using golden::Json;
using testing::ElementsAre;
using testing::HasSubstr;

Json message(const std::string& role, const std::string& content) { return {{"role", role}, {"content", content}}; }

std::string error_of(const TemplateContext& context, const Json& row) {
  return test::error_of([&] { encode_conversation(context, row); });
}

// Two turns whose words occur nowhere else; one for templates that write a turn differently once others follow.
Json two_turns() {
  return {{"messages", Json::array({message("user", "Quux asks"), message("assistant", "Zorro answers"), message("user", "Frob asks"),
                                    message("assistant", "Xyzzy answers")})}};
}
Json one_turn() { return {{"messages", Json::array({message("user", "Quux asks"), message("assistant", "Zorro answers")})}}; }

const std::set<std::string> kRewriteHistory = {"qwen3"};
const std::set<std::string> kWriteOtherPrompts = {"codellama-70b"};  // a "Destination: user" that no finished turn has
const std::set<std::string> kWriteNoEndToken = {"glm-4-9b", "glm-4.5", "glm-4.6", "hunyuan-hy3"};
const std::set<std::string> kForgetThinking = {"glm-4.5-training"};   // earlier turns lose their thinking: only the blocks say what is supervised
const std::set<std::string> kNeedTools = {"hermes-2-pro-tools"};

class TemplateMask : public testing::TestWithParam<std::string> {};

TEST_P(TemplateMask, CoversTheAssistantAndItsEndTokenOnly) {
  const std::string name = GetParam();
  if (kNeedTools.count(name)) {
    EXPECT_THAT(error_of(golden::context_of(golden::load(name)), one_turn()), HasSubstr("NoneType"));
    return;
  }
  const TemplateContext context = golden::context_of(golden::load(name));
  if (kWriteOtherPrompts.count(name)) {
    EXPECT_THAT(error_of(context, two_turns()), HasSubstr("expected the text before it to be what a server asks with"));
    return;
  }
  const bool rewrites = kRewriteHistory.count(name);
  if (rewrites) {
    EXPECT_THAT(error_of(context, two_turns()), HasSubstr("message 2 (assistant): expected its text to stay"));
    EXPECT_FALSE(turn_stability(context, two_turns())[0].stable);
    EXPECT_TRUE(turn_stability(context, two_turns())[1].stable);
  }
  const EncodedText encoded = encode_conversation(context, rewrites ? one_turn() : two_turns());
  ASSERT_EQ(encoded.ids.size(), encoded.supervised.size());
  const auto parts = golden::supervised_parts(context, encoded);
  ASSERT_EQ(parts.size(), rewrites ? 1u : 2u) << encoded.text;
  for (size_t i = 0; i < parts.size(); ++i) {
    EXPECT_THAT(parts[i], HasSubstr(i == 0 ? "Zorro answers" : "Xyzzy answers"));
    EXPECT_THAT(parts[i], testing::Not(HasSubstr("asks")));
  }
  if (kWriteNoEndToken.count(name)) return;
  for (const std::string& part : parts) {
    // Harmony ends an answer with <|return|>, but writes <|end|> in its place once the conversation goes on.
    if (name == "gpt-oss" && &part != &parts.back()) continue;
    const std::string stripped = part.substr(0, part.find_last_not_of('\n') + 1);
    EXPECT_FALSE(stripped.ends_with("answers")) << "no end token is supervised: " << part;
  }
}

// Rendering prefixes finds what the template's author marked with generation blocks, up to a newline at either end.
TEST_P(TemplateMask, AgreesWithGenerationBlocks) {
  golden::Template golden = golden::load(GetParam());
  const TemplateContext marked = golden::context_of(golden);
  if (!marked.chat_template->has_generation_blocks()) return;
  if (golden.name == "deepseek-v3-training") return;  // its blocks hold the turn's header too
  golden.source = std::regex_replace(golden.source, std::regex("\\{%(-?)\\s*(end)?generation\\s*(-?)%\\}"), "{%$1 if true %}{% endif $3%}");
  const TemplateContext unmarked = golden::context_of(golden);
  ASSERT_FALSE(unmarked.chat_template->has_generation_blocks());
  const auto trimmed = [](std::string text) {
    text.erase(0, text.find_first_not_of('\n'));
    return text.substr(0, text.find_last_not_of('\n') + 1);
  };
  for (const golden::Case& item : golden.cases) {
    if (!item.expected.contains("text") || item.id.find("nogen") == std::string::npos || item.id.find("thinking") == 0) continue;
    SCOPED_TRACE(item.id);
    auto expected = golden::supervised_parts(marked, encode_conversation(marked, item.conversation));
    if (kForgetThinking.count(golden.name) && error_of(unmarked, item.conversation).find("expected its text to stay") != std::string::npos) continue;
    auto found = golden::supervised_parts(unmarked, encode_conversation(unmarked, item.conversation));
    std::transform(expected.begin(), expected.end(), expected.begin(), trimmed);
    std::transform(found.begin(), found.end(), found.begin(), trimmed);
    EXPECT_EQ(found, expected);
  }
}

INSTANTIATE_TEST_SUITE_P(All, TemplateMask, testing::ValuesIn(golden::names()), golden::test_name);

TemplateContext context_with(const std::string& source) {
  TemplateContext context = test::byte_context();
  context.chat_template = std::make_shared<ChatTemplate>(source, "test");
  return context;
}

std::vector<std::string> parts_of(const TemplateContext& context, const Json& row) {
  return golden::supervised_parts(context, encode_conversation(context, row));
}

TEST(Conversation, SupervisesContentAndEndToken) {
  EXPECT_THAT(parts_of(test::byte_context(), two_turns()), ElementsAre("Zorro answers<|im_end|>", "Xyzzy answers<|im_end|>"));
  Json row = one_turn();
  row["messages"][1]["content"] = "user\nassistant <|im_end|> assistant";  // words of the header, and the end token itself
  EXPECT_THAT(parts_of(test::byte_context(), row), ElementsAre("user\nassistant <|im_end|> assistant<|im_end|>"));
  row["messages"][1]["content"] = "";
  EXPECT_THAT(parts_of(test::byte_context(), row), ElementsAre("<|im_end|>"));
}

TEST(Conversation, PromptHasNothingSupervised) {
  const EncodedText prompt = encode_prompt(test::byte_context(), {{"messages", Json::array({message("user", "Hi")})}});
  EXPECT_EQ(prompt.text, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(std::count(prompt.supervised.begin(), prompt.supervised.end(), 1), 0);
  EXPECT_THROW(encode_prompt(test::byte_context(), one_turn()), UserError);
}

TEST(Conversation, TriesOtherFormsOfMessagesBeforeItGivesUp) {
  // Joins content with +: parts and None must become text; wants arguments as text.
  const TemplateContext joins = context_with(
      "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name + "
      "c.function.arguments }}{% endfor %}{{ '<|im_end|>' }}{% endfor %}");
  const Json row = {{"messages", Json::parse(R"([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
      {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1, 2.50], "y": "é"}}}]}])")}};
  EXPECT_EQ(encode_conversation(joins, row).text,
            "<|im_start|>user\nab<|im_end|><|im_start|>assistant\nf{\"x\": [1, 2.5], \"y\": \"é\"}<|im_end|>");
  // Wants a mapping: JSON text is parsed.
  const TemplateContext maps = context_with(
      "{% for m in messages %}<|im_start|>{% for c in m.tool_calls or [] %}{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }}"
      "{% endfor %}{% endfor %}<|im_end|>{% endfor %}");
  Json text_arguments = row;
  text_arguments["messages"][1]["tool_calls"][0]["function"]["arguments"] = "{\"x\": 1}";
  EXPECT_THAT(encode_conversation(maps, text_arguments).text, HasSubstr("x=1"));
}

TEST(Conversation, PassesToolsDocumentsAndArguments) {
  TemplateContext context = context_with(
      "{{ tools is none }}{{ documents | length }}{{ tone }}{{ eos_token }}{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>"
      "{% endfor %}");
  context.arguments["tone"] = "calm";
  Json row = one_turn();
  row["documents"] = Json::array({1, 2});
  EXPECT_THAT(encode_conversation(context, row).text, HasSubstr("True2calm<|im_end|>"));
}

TEST(Conversation, ErrorsNameTemplateAndMessage) {
  const TemplateContext context = test::byte_context();
  Json row = two_turns();
  row["messages"][2]["role"] = "critic";
  EXPECT_THAT(error_of(context, row), HasSubstr("chatml: message 3: unknown role \"critic\"; known are system, developer, user"));
  row = two_turns();
  row["messages"][2]["content"] = 3;
  EXPECT_THAT(error_of(context, row), HasSubstr("chatml, line 1: message 3 (user): TypeError: can only concatenate str (not \"int\") to str"));
  row["messages"][2]["content"] = Json::parse(R"([{"type": "image"}])");
  EXPECT_THAT(error_of(context, row), HasSubstr("message 3: expected content parts"));
  EXPECT_THAT(error_of(context, Json::object()), HasSubstr("expected \"messages\" to be a list"));
  TemplateContext without = context;
  without.chat_template = nullptr;
  EXPECT_THAT(error_of(without, two_turns()), HasSubstr("expected a model with a chat template"));
}

TEST(Conversation, RefusesTextThatNoServerWouldAskWith) {
  // The system message moves into the last user turn, as Mistral's templates do: once the answer follows, it is gone.
  const TemplateContext context = context_with(
      "{% for m in messages %}{% if m.role == 'user' %}[{% if loop.last %}{{ messages[0].content }}: {% endif %}{{ m.content }}]"
      "{% elif m.role == 'assistant' %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}");
  Json row = one_turn();
  row["messages"].insert(row["messages"].begin(), message("system", "Be kind"));
  EXPECT_THAT(error_of(context, row), HasSubstr("message 3 (assistant): expected the text before it to be what a server asks with"));
  EXPECT_FALSE(turn_stability(context, row)[0].as_served);
}

TEST(RewrittenTurns, AreNamedWhereGenerationBlocksLetThemPass) {
  const auto context = context_with(
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{% if loop.last %}<think>{{ m.reasoning_content }}</think>{% endif %}"
      "{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
      "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
  DatasetSplit split;
  split.name = "train";
  for (const auto& json : {one_turn(), two_turns()}) {
    Row row;
    row.json = json;
    row.source_file = "chats.jsonl";
    row.line = static_cast<int64_t>(split.rows.size()) + 1;
    split.rows.push_back(row);
  }
  const auto finding = rewritten_turns(context, split);
  ASSERT_TRUE(finding);
  EXPECT_THAT(finding->places, ElementsAre("chats.jsonl:2: message 2"));
  split.rows.pop_back();
  EXPECT_FALSE(rewritten_turns(context, split));
}

TEST(Conversation, FindsTheTurnWhenThePromptOpensAThinkBlock) {
  const TemplateContext context = context_with(
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
      "{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}");
  EXPECT_THAT(parts_of(context, one_turn()), ElementsAre("Zorro answers<|im_end|>"));
  Json row = one_turn();
  row["messages"][1]["content"] = "the <b>";  // begins like what the prompt goes on with
  EXPECT_THAT(parts_of(context, row), ElementsAre("the <b><|im_end|>"));
  row["messages"][1]["content"] = "<table>";
  EXPECT_THAT(parts_of(context, row), ElementsAre("<table><|im_end|>"));
  row["messages"][1]["reasoning"] = "hm";
  EXPECT_THAT(parts_of(context, row), ElementsAre("hm</think><table><|im_end|>"));  // the prompt has opened the block
}

TEST(Conversation, TemplatesWithoutGenerationPrompt) {
  const TemplateContext header = context_with("{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}");
  EXPECT_THAT(parts_of(header, one_turn()), ElementsAre("Zorro answers<|im_end|>"));
  const TemplateContext blank = context_with(
      "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content | trim }} <|im_end|>"
      "{% endif %}{% endfor %}");
  EXPECT_THAT(parts_of(blank, one_turn()), ElementsAre(" Zorro answers <|im_end|>"));
}

TEST(Conversation, GenerationBlocksAreTakenAsTheyAre) {
  const TemplateContext context = context_with(
      "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}é{{ m.content }}<|im_end|>\n{% endgeneration %}{% else %}"
      "ü{{ m.content }}{% endif %}{% endfor %}");
  EXPECT_THAT(parts_of(context, two_turns()), ElementsAre("éZorro answers<|im_end|>\n", "éXyzzy answers<|im_end|>\n"));
}

}  // namespace
}  // namespace graft
