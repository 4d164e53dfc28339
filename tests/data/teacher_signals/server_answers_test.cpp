// A server's address, and what its answers say, whatever they hold.
#include "data/teacher_signals/server_answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/teacher_signals/server_address.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

TEST(ServerAddress, tells_this_machine_from_others) {
  for (const char* url : {"http://127.0.0.1:8080/v1", "http://127.9.8.7/v1", "https://LocalHost/v1/", "http://[::1]:80/v1", "http://localhost"}) EXPECT_TRUE(server_address(url).loopback) << url;
  for (const char* url : {"http://127.0.0.1.example.org/v1", "http://localhost.example.org", "http://127.0.0/v1", "http://127.0.0.256", "http://0x7f000001", "http://2130706433", "http://127.0.0.1.",
                          "http://[::2]/v1", "https://teacher/v1", "http://128.0.0.1"}) {
    EXPECT_EQ(problem_of_server(url), "") << url;
    EXPECT_FALSE(server_address(url).loopback) << url;
  }
  const auto address = server_address("https://Teacher.Example.org:8443/a/v1//");
  EXPECT_EQ(address.url, "https://Teacher.Example.org:8443/a/v1");
  EXPECT_EQ(address.host, "Teacher.Example.org:8443");
  EXPECT_TRUE(address.encrypted);
}

TEST(ServerAddress, holds_nothing_but_an_address) {
  for (const char* url : {"", "127.0.0.1:8080", "ftp://127.0.0.1", "file:///etc/passwd", "http://", "http://:80/v1", "http://127.0.0.1:0/v1", "http://127.0.0.1:65536/v1", "http://127.0.0.1:8o/v1",
                          "http://[::1", "http://[::1]8/v1", "http://[zz]/v1", "http://a b/v1", "http://127.0.0.1/v1\r\nHost: x", "http://127.0.0.1/v1;x", "http://127.0.0.1\\x"}) {
    EXPECT_NE(problem_of_server(url), "") << url;
    EXPECT_THROW(server_address(url), UserError) << url;
  }
  for (const char* url : {"http://secret@127.0.0.1/v1", "http://user:secret@127.0.0.1/v1", "http://127.0.0.1/v1?key=secret", "http://127.0.0.1/v1#secret", "secret", "http://127.0.0.1/secret secret"}) {
    EXPECT_NE(problem_of_server(url), "");
    EXPECT_EQ(problem_of_server(url).find("secret"), std::string::npos) << "it is shown";
  }
}

TEST(ServerAnswers, have_three_forms) {
  const auto scores = nlohmann::json::parse(R"({"choices": [{"prompt_logprobs": [null, {"17": {"logprob": -0.5, "rank": 1, "decoded_token": "a"}, "4": {"logprob": -1}}]}]})");
  EXPECT_TRUE(answers_as(ServerForm::kScoresPrompt, scores, 2));
  EXPECT_FALSE(answers_as(ServerForm::kScoresPrompt, scores, 3));
  EXPECT_TRUE(served_tokens(ServerForm::kScoresPrompt, scores, 0).empty());
  ASSERT_EQ(served_tokens(ServerForm::kScoresPrompt, scores, 1).size(), 2u);
  EXPECT_EQ(served_tokens(ServerForm::kScoresPrompt, scores, 1)[0].id, 17);
  EXPECT_EQ(served_tokens(ServerForm::kScoresPrompt, scores, 1)[0].text, "a");
  const auto echoes = nlohmann::json::parse(R"({"choices": [{"logprobs": {"tokens": ["x", "y"], "top_logprobs": [null, {"a": -0.5, "token_id:9": -2}, {"b": 0}]}}]})");
  EXPECT_TRUE(answers_as(ServerForm::kEchoes, echoes, 2));
  const auto tokens = served_tokens(ServerForm::kEchoes, echoes, 1);
  ASSERT_EQ(tokens.size(), 2u);
  EXPECT_EQ(tokens[0].text, "a");
  EXPECT_EQ(tokens[1].id, 9);
  EXPECT_EQ(echoed_tokens(echoes)[1].text, "y");
  const auto next = nlohmann::json::parse(R"({"choices": [{"logprobs": {"content": [{"top_logprobs": [{"id": 3, "token": "\ufffd", "bytes": [200], "logprob": -0.25}]}]}}], "usage": {"prompt_tokens": 5}})");
  EXPECT_FALSE(answers_as(ServerForm::kEchoes, next, 2));
  EXPECT_TRUE(answers_as(ServerForm::kNextToken, next, 2));
  EXPECT_EQ(served_tokens(ServerForm::kNextToken, next, 0)[0].text, "\xc8");
  EXPECT_EQ(served_tokens(ServerForm::kNextToken, next, 0)[0].log_probability, -0.25);
  EXPECT_EQ(tokens_read(next), 5);
}

TEST(ServerAnswers, may_hold_anything) {
  const char* const values[] = {"null", "1", "-1e308", "\"x\"", "[]", "{}", "[null]", "[[[]]]", "{\"a\": {}}", "[{\"id\": \"x\", \"bytes\": [\"y\", 1e9, -5], \"logprob\": \"z\"}]", "[{\"id\": 1e30}]"};
  const char* const places[] = {"%", "{\"choices\": %}", "{\"choices\": [%]}", "{\"choices\": [{\"logprobs\": %, \"prompt_logprobs\": %}]}", "{\"choices\": [{\"prompt_logprobs\": [%, %]}]}",
                                "{\"choices\": [{\"logprobs\": {\"content\": %, \"top_logprobs\": %, \"tokens\": %}}]}", "{\"choices\": [{\"logprobs\": {\"content\": [{\"top_logprobs\": %}]}}]}",
                                "{\"usage\": {\"prompt_tokens\": %}}"};
  for (const std::string place : places) {
    for (const std::string value : values) {
      std::string text;
      for (const char c : place) text += c == '%' ? value : std::string(1, c);
      const auto answer = nlohmann::json::parse(text);
      for (const auto form : {ServerForm::kScoresPrompt, ServerForm::kEchoes, ServerForm::kNextToken}) {
        answers_as(form, answer, 2);
        for (const size_t position : {0, 1, 7}) {
          EXPECT_LE(served_tokens(form, answer, position).size(), 3u) << text;
        }
      }
      tokens_read(answer);
      echoed_tokens(answer);
      EXPECT_LE(server_message(text).size(), 310u);
    }
  }
  EXPECT_EQ(server_message(R"({"error": {"message": "no\nmore"}})"), "no more");
  EXPECT_EQ(server_message("<html>"), "<html>");
}

}  // namespace
}  // namespace graft
