#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "data/templates/chat_template.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class LoadChatTemplate : public testing::Test {
 protected:
  LoadChatTemplate()
      : folder_(fs::temp_directory_path() /
                ("graft_template_" + std::to_string(::getpid()) + testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::create_directories(folder_);
  }
  ~LoadChatTemplate() override { fs::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) { std::ofstream(folder_ / name, std::ios::binary) << text; }
  std::string error(const std::string& name = "") {
    try {
      load_chat_template(name.empty() ? folder_ : folder_ / name);
    } catch (const UserError& error) {
      return error.what();
    }
    return "no error";
  }

  fs::path folder_;
};

TEST_F(LoadChatTemplate, PrefersTheJinjaFile) {
  EXPECT_EQ(load_chat_template(folder_), nullptr);
  write("tokenizer_config.json", R"({"chat_template": "config"})");
  EXPECT_EQ(load_chat_template(folder_)->source(), "config");
  write("chat_template.jinja", "file\n");
  EXPECT_EQ(load_chat_template(folder_)->source(), "file\n");
  EXPECT_EQ(load_chat_template(folder_)->render({}, 0).text, "file");
}

TEST_F(LoadChatTemplate, TakesTheDefaultOfNamedTemplates) {
  write("tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})");
  EXPECT_EQ(load_chat_template(folder_)->source(), "d");
  write("tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "t"}]})");
  EXPECT_THAT(error(), HasSubstr("\"tool_use\""));
}

TEST_F(LoadChatTemplate, NullOrAbsentIsNoTemplate) {
  write("tokenizer_config.json", R"({"chat_template": null})");
  EXPECT_EQ(load_chat_template(folder_), nullptr);
  write("tokenizer_config.json", "{}");
  EXPECT_EQ(load_chat_template(folder_), nullptr);
}

TEST_F(LoadChatTemplate, SaysWhatIsWrong) {
  write("tokenizer_config.json", "{");
  EXPECT_THAT(error(), HasSubstr("tokenizer_config.json"));
  write("tokenizer_config.json", R"({"chat_template": 3})");
  EXPECT_THAT(error(), HasSubstr("got number"));
  write("chat_template.jinja", "a\n{% if %}");
  EXPECT_THAT(error(), HasSubstr("chat_template.jinja, line 2"));
  write("chat_template.jinja", "a\xff");
  EXPECT_THAT(error(), HasSubstr("offset 1"));
  EXPECT_THAT(error("nowhere.gguf"), HasSubstr("does not exist"));
  EXPECT_THAT(error("chat_template.jinja"), HasSubstr("expected a model directory or a .gguf file"));
}

}  // namespace
}  // namespace graft
