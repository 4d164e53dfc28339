// Templates of families that ship none: against what the families' own Python encoders write.
#include "data/templates/built_in_templates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "data/templates/conversation.h"
#include "data/templates/template_variables.h"
#include "data/templates/turn_stability.h"
#include "kernels/common/error.h"
#include "tests/data/templates/golden_context.h"
#include "tests/data/templates/special_token_tokenizer.h"
#include "tests/support/files.h"

namespace graft {
namespace {

using golden::Json;
using testing::ElementsAre;
using testing::HasSubstr;

class BuiltIn : public testing::Test {
 protected:
  // A directory of this family, without a template of its own.
  std::shared_ptr<const ChatTemplate> load(const Json& config, const Json& tokenizer_config) {
    std::ofstream(folder_ / "config.json") << config.dump();
    std::ofstream(folder_ / "tokenizer_config.json") << tokenizer_config.dump();
    return load_chat_template(folder_.path());
  }
  TemplateContext context(std::shared_ptr<const ChatTemplate> chat_template, const std::vector<std::string>& specials, const std::string& eos) {
    auto tokenizer = std::make_shared<test::SpecialTokenTokenizer>(specials);
    tokenizer->eos_id = tokenizer->token_id(eos);
    tokenizer->special_tokens["eos_token"] = eos;
    return {tokenizer, std::move(chat_template), Json::object(), golden::kClock};
  }
  test::TemporaryFolder folder_;
};

const Json kTwoTurns = Json::parse(R"({"messages": [{"role": "user", "content": "Quux asks"}, {"role": "assistant", "content": "Zorro answers"},
    {"role": "user", "content": "Frob asks"}, {"role": "assistant", "content": "Xyzzy answers"}]})");
Json prompt_of(Json row) {
  row["messages"].erase(row["messages"].size() - 1);
  return row;
}

TEST_F(BuiltIn, ChatGlm2) {
  const auto chat = context(load({{"model_type", "chatglm"}}, {{"tokenizer_class", "ChatGLMTokenizer"}, {"name_or_path", "THUDM/chatglm2-6b"}}), {"[gMASK]", "sop", "</s>"}, "</s>");
  EXPECT_EQ(chat.chat_template->name(), "built-in template of ChatGLM2");
  EXPECT_EQ(encode_prompt(chat, prompt_of(kTwoTurns)).text, "[gMASK]sop[Round 1]\n\n问：Quux asks\n\n答：Zorro answers\n\n[Round 2]\n\n问：Frob asks\n\n答：");
  const EncodedText encoded = encode_conversation(chat, kTwoTurns);
  EXPECT_EQ(encoded.text, "[gMASK]sop[Round 1]\n\n问：Quux asks\n\n答：Zorro answers\n\n[Round 2]\n\n问：Frob asks\n\n答：Xyzzy answers</s>");
  EXPECT_THAT(golden::supervised_parts(chat, encoded), ElementsAre("Zorro answers", "Xyzzy answers</s>"));
  Json system = kTwoTurns;
  system["messages"][0]["role"] = "system";
  EXPECT_THAT([&] { encode_conversation(chat, system); }, testing::ThrowsMessage<UserError>(HasSubstr("got system")));
}

TEST_F(BuiltIn, ChatGlm3) {
  const Json decoder = {{"64795", {{"content", "<|user|>"}}}};
  const auto chat = context(load({{"model_type", "chatglm"}}, {{"tokenizer_class", "ChatGLMTokenizer"}, {"added_tokens_decoder", decoder}}),
                            {"[gMASK]", "sop", "<|user|>", "<|assistant|>", "<|observation|>", "</s>"}, "</s>");
  EXPECT_EQ(encode_prompt(chat, prompt_of(kTwoTurns)).text, "[gMASK]sop<|user|>\n Quux asks<|assistant|>\n Zorro answers<|user|>\n Frob asks<|assistant|>");
  EXPECT_THAT(golden::supervised_parts(chat, encode_conversation(chat, kTwoTurns)), ElementsAre(HasSubstr("Zorro answers"), HasSubstr("Xyzzy answers</s>")));
}

TEST_F(BuiltIn, OpenPangu) {
  const auto chat = context(load({{"model_type", "PanguEmbedded"}}, {{"tokenizer_class", "PanguTokenizer"}}), {"<s>", "[unused9]", "[unused10]", "[unused16]", "[unused17]"}, "[unused10]");
  EXPECT_EQ(encode_prompt(chat, prompt_of(kTwoTurns)).text,
            "<s>[unused9]系统：[unused10][unused9]用户：Quux asks[unused10][unused9]助手：Zorro answers[unused10][unused9]用户：Frob asks[unused10][unused9]助手：");
  Json row = kTwoTurns;
  row["messages"][3]["reasoning_content"] = "thoughts";
  EXPECT_THAT(golden::supervised_parts(chat, encode_conversation(chat, row)), ElementsAre("Zorro answers[unused10]", "[unused16]thoughts[unused17]Xyzzy answers[unused10]"));
}

TEST_F(BuiltIn, AModelsOwnTemplateComesFirst) {
  EXPECT_EQ(load({{"model_type", "PanguEmbedded"}}, {{"chat_template", "own"}})->source(), "own");
  EXPECT_EQ(load({{"model_type", "llama"}}, Json::object()), nullptr);
}

std::filesystem::path golden_file() {
  const char* source = std::getenv("GRAFT_SOURCE_DIR");
  const auto folder = source ? std::filesystem::path(source) / "tests/data/templates" : std::filesystem::path(__FILE__).parent_path();
  return folder / "deepseek_v32.golden.json";
}

// The goldens were made once, outside this tree, by the render functions of DeepSeek's encoding_dsv32.py (typed off vLLM's copy of it).
TEST_F(BuiltIn, DeepseekV32AsItsEncoder) {
  const auto chat = context(load({{"model_type", "deepseek_v32"}}, Json::object()),
                            {"<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "<｜end▁of▁sentence｜>"}, "<｜end▁of▁sentence｜>");
  const Json goldens = Json::parse(golden::read(golden_file()));
  ASSERT_EQ(goldens.size(), 8u);
  for (const Json& item : goldens) {
    SCOPED_TRACE(item.at("id"));
    Json row = item;
    for (const char* key : {"id", "text"}) row.erase(key);
    const bool prompt = item["messages"].back()["role"] == "user";
    if (item["id"] == "thinking") {
      // The earlier answer is written without its thoughts: the row must end there, and the plan says so.
      EXPECT_THAT([&] { encode_conversation(chat, row); }, testing::ThrowsMessage<UserError>(HasSubstr("message 2 (assistant): expected its text to stay")));
      EXPECT_FALSE(turn_stability(chat, row)[0].stable);
      EXPECT_TRUE(turn_stability(chat, row)[1].stable);
      continue;
    }
    const EncodedText encoded = prompt ? encode_prompt(chat, row) : encode_conversation(chat, row);
    EXPECT_EQ(encoded.text, item["text"].get<std::string>());
    for (const std::string& part : golden::supervised_parts(chat, encoded)) {
      EXPECT_TRUE(part.ends_with("<｜end▁of▁sentence｜>")) << part;
      EXPECT_THAT(part, testing::Not(HasSubstr("<｜User｜>")));
    }
  }
}

}  // namespace
}  // namespace graft
