#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/templates/render_line.h"
#include "tests/data/byte_tokenizer.h"
#include "tests/data/templates/golden_context.h"

namespace graft {
namespace {

using golden::Json;
using testing::HasSubstr;

TEST(RenderLine, EqualsTheGoldens) {
  size_t texts = 0, errors = 0, masks = 0;
  for (const std::string& name : golden::names()) {
    const golden::Template golden = golden::load(name);
    const TemplateContext context = golden::context_of(golden);
    for (const golden::Case& item : golden.cases) {
      SCOPED_TRACE(name + " " + item.id);
      const Json result = render_line(context, item.conversation);
      if (item.expected.contains("error")) {
        ++errors;
        EXPECT_EQ(result.value("error", Json()), item.expected.at("error"));
        EXPECT_THAT(result.value("where", ""), HasSubstr(name + ", line "));
        continue;
      }
      ++texts;
      ASSERT_TRUE(result.contains("text")) << result;
      EXPECT_EQ(result["text"], item.expected.at("text"));
      EXPECT_EQ(result["ids"].get<std::vector<int32_t>>(), context.tokenizer->encode(result["text"].get<std::string>(), false));
      if (result["mask"].is_null()) {
        EXPECT_TRUE(result["mask_error"].is_string());
      } else {
        EXPECT_EQ(result["mask"].size(), result["ids"].size());
        ++masks;
      }
    }
  }
  EXPECT_EQ(texts + errors, 66u * 16u);
  EXPECT_GT(masks, texts * 3 / 4);
}

TEST(RenderLine, TakesArgumentsFromTheLine) {
  TemplateContext context = test::byte_context();
  context.chat_template = std::make_shared<ChatTemplate>("{{ mode }}{{ tools }}{{ add_generation_prompt }}", "test");
  context.arguments["mode"] = "default";
  EXPECT_EQ(render_line(context, {{"messages", Json::array()}})["text"], "defaultNoneFalse");
  EXPECT_EQ(render_line(context, {{"messages", Json::array()}, {"mode", "own"}, {"add_generation_prompt", true}})["text"], "ownNoneTrue");
}

TEST(RenderLine, SaysWhatIsWrongWithALine) {
  EXPECT_EQ(render_line(test::byte_context(), Json::array())["error"]["kind"], "input");
  EXPECT_EQ(render_line(test::byte_context(), {{"prompt", "x"}})["error"]["kind"], "input");
  const Json result = render_line(test::byte_context(), {{"messages", Json::array({{{"role", "user"}, {"content", 3}}})}});
  EXPECT_EQ(result["error"]["type"], "TypeError");
  EXPECT_EQ(result["where"], "chatml, line 1");
}

TEST(RenderLine, MasksTheAssistant) {
  const Json result = render_line(test::byte_context(), {{"messages", Json::parse(R"([{"role": "user", "content": "a"},
      {"role": "assistant", "content": "b"}])")}, {"add_generation_prompt", true}});
  EXPECT_EQ(result["text"], "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>assistant\n");
  std::string supervised;
  for (size_t i = 0; i < result["ids"].size(); ++i) {
    if (result["mask"][i] == 1) supervised += test::ByteTokenizer().token_bytes(result["ids"][i]);
  }
  EXPECT_EQ(supervised, "b<|im_end|>");
}

}  // namespace
}  // namespace graft
