// Chat templates as Go templates for Ollama. That Go writes the same conversations: tests/exports/go_template_test.py, with Go itself.
#include "trainer/exports/ollama_modelfile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace graft {
namespace {

using testing::HasSubstr;

GoTemplate converted(const std::string& jinja, const std::string& bos = "") {
  return go_template(ChatTemplate(jinja, "test"), {{"bos_token", "<s>"}, {"eos_token", "</s>"}}, bos);
}

constexpr const char* kChatMl = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
                                "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

TEST(OllamaModelfile, WritesTurnsOneAfterAnother) {
  const auto go = converted(kChatMl);
  EXPECT_EQ(go.problem, "");
  EXPECT_THAT(go.differences, testing::IsEmpty());
  EXPECT_EQ(go.text,
            "{{- $last := \"\" }}{{ range .Messages }}\n"
            "{{- if eq .Role \"system\" }}{{ if eq $last \"\" }}{{ \"<|im_start|>system\\n\" }}{{ end }}{{ .Content }}{{ $last = \"system\" }}\n"
            "{{- else if eq .Role \"user\" }}{{ if eq $last \"\" }}{{ \"<|im_start|>user\\n\" }}{{ else if eq $last \"assistant\" }}{{ \"<|im_end|>\\n<|im_start|>user\\n\" }}"
            "{{ else if eq $last \"system\" }}{{ \"<|im_end|>\\n<|im_start|>user\\n\" }}{{ end }}{{ .Content }}{{ $last = \"user\" }}\n"
            "{{- else if eq .Role \"assistant\" }}{{ if eq $last \"user\" }}{{ \"<|im_end|>\\n<|im_start|>assistant\\n\" }}{{ end }}{{ .Content }}{{ $last = \"assistant\" }}\n"
            "{{- end }}{{ end }}{{ if eq $last \"user\" }}{{ \"<|im_end|>\\n<|im_start|>assistant\\n\" }}{{ end }}");
}

TEST(OllamaModelfile, HasTheTemplatesOwnSystemMessage) {
  const auto go = converted(std::string("{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}") + kChatMl);
  EXPECT_THAT(go.text, HasSubstr("{{ if eq $last \"\" }}{{ \"<|im_start|>system\\nBe brief.<|im_end|>\\n<|im_start|>user\\n\" }}"));
}

TEST(OllamaModelfile, LeavesTheFirstTokenToTheEngine) {
  const auto jinja = std::string("{{ bos_token }}") + kChatMl;
  EXPECT_THAT(converted(jinja, "<s>").text, testing::Not(HasSubstr("<s>")));
  EXPECT_THAT(converted(jinja).text, HasSubstr("{{ \"<s><|im_start|>user\\n\" }}"));
}

TEST(OllamaModelfile, SaysWhatIsOtherwise) {
  const auto go = converted("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{% for m in messages %}{{ '<' + m.role + '>' + m.content | trim }}{% endfor %}"
                            "{% if tools %}{{ tools }}{% endif %}<assistant>");
  EXPECT_EQ(go.problem, "");
  EXPECT_THAT(go.differences, testing::ElementsAre(HasSubstr("system messages"), HasSubstr("white space"), HasSubstr("tools")));
  EXPECT_THAT(go.text, testing::Not(HasSubstr("eq .Role \"system\"")));
}

TEST(OllamaModelfile, RefusesWhatGoCannotSay) {
  const auto expect_problem = [](const std::string& jinja, const std::string& words) {
    const auto go = converted(jinja);
    EXPECT_EQ(go.text, "") << jinja;
    EXPECT_THAT(go.problem, HasSubstr(words)) << jinja;
  };
  expect_problem("{% for m in messages %}[Round {{ loop.index }}]{{ m.content }}{% endfor %}", "more than their roles");
  expect_problem("{{ messages[-1].content }}", "leaves out or moves the user message");
  expect_problem("{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content }}{% endfor %}", "the date");
  expect_problem("{{ raise_exception('no') }}", "refuses a plain conversation");
  // Mistral's: the system message goes into the last user message.
  expect_problem("{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}{% set ns.system = m.content %}{% else %}"
                 "{{ '[' + m.role + ']' }}{% if loop.last %}{{ ns.system }}{% endif %}{{ m.content }}{% endif %}{% endfor %}", "");
}

}  // namespace
}  // namespace graft
