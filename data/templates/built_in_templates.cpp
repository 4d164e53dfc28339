#include "data/templates/built_in_templates.h"

#include <fstream>
#include <string>
#include <string_view>

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

// Rounds are numbered, an answer ends the text or two line breaks follow it; no system turn. (ChatGLM2's tokenizer.build_prompt; eos as
// its fine-tuning scripts put it.)
constexpr std::string_view kChatGlm2 = R"jinja([gMASK]sop
{%- set ns = namespace(round=0) %}
{%- for message in messages %}
  {%- if message.role == 'user' %}
    {%- set ns.round = ns.round + 1 %}
    {{- '[Round ' ~ ns.round ~ ']\n\n问：' + message.content + '\n\n答：' }}
  {%- elif message.role == 'assistant' %}
    {{- message.content + ('</s>' if loop.last else '\n\n') }}
  {%- else %}
    {{- raise_exception('ChatGLM2 has turns of user and assistant only, got ' ~ message.role) }}
  {%- endif %}
{%- endfor %})jinja";

// A turn has no end token: the next role ends it. The space and line break belong to the header. (ChatGLM3's build_single_message.)
constexpr std::string_view kChatGlm3 = R"jinja([gMASK]sop
{%- for message in messages %}
  {%- if message.role in ['system', 'user', 'assistant', 'observation'] %}
    {{- '<|' + message.role + '|>' + (message.metadata or '') + '\n ' + message.content }}
  {%- elif message.role == 'tool' %}
    {{- '<|observation|>\n ' + message.content }}
  {%- else %}
    {{- raise_exception('ChatGLM3 has turns of system, user, assistant and tool only, got ' ~ message.role) }}
  {%- endif %}
{%- endfor %}
{%- if messages and messages[-1].role == 'assistant' and not add_generation_prompt %}{{ '</s>' }}{% endif %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %})jinja";

// Thinking stands between [unused16] and [unused17] at the front of an answer.
constexpr std::string_view kPangu = R"jinja(
{%- set names = {'system': '系统', 'user': '用户', 'assistant': '助手', 'tool': '工具', 'function': '方法'} %}
{%- for message in messages %}
  {%- if loop.first %}
    {{- '<s>' }}
    {%- if message.role != 'system' %}{{ '[unused9]系统：[unused10]' }}{% endif %}
  {%- endif %}
  {%- if message.role not in names %}{{ raise_exception('openPangu has turns of system, user, assistant, tool and function only, got ' ~ message.role) }}{% endif %}
  {{- '[unused9]' + names[message.role] + '：' }}
  {%- if message.role == 'assistant' and message.reasoning_content %}{{ '[unused16]' + message.reasoning_content + '[unused17]' }}{% endif %}
  {{- message.content + '[unused10]' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '[unused9]助手：' }}{% endif %})jinja";

// DeepSeek V3.2's encoding (encoding/encoding_dsv32.py of its repository). thinking: the last user's question is answered with thinking;
// answers before it lose theirs. Tools are those of the row, or of a system or developer message.
constexpr std::string_view kDeepseek32 = R"jinja(
{%- set d = '｜DSML｜' %}
{%- set thinking = thinking is defined and thinking %}
{%- set ns = namespace(last_user=-1, calls=0, results=0) %}
{%- for message in messages %}
  {%- if message.role in ['user', 'developer'] %}{% set ns.last_user = loop.index0 %}{% endif %}
{%- endfor %}
{%- macro render_tools(tools) %}
  {{- "## Tools\nYou have access to a set of tools you can use to answer the user's question.\n" }}
  {{- 'You can invoke functions by writing a "<' + d + 'function_calls>" block like the following as part of your reply to the user:\n' }}
  {{- '<' + d + 'function_calls>\n<' + d + 'invoke name="$FUNCTION_NAME">\n' }}
  {{- '<' + d + 'parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</' + d + 'parameter>\n...\n' }}
  {{- '</' + d + 'invoke>\n<' + d + 'invoke name="$FUNCTION_NAME2">\n...\n</' + d + 'invoke>\n</' + d + 'function_calls>\n' }}
  {{- 'String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects should use JSON format. ' }}
  {{- 'The "string" attribute should be set to "true" for string type parameters and "false" for other types (numbers, booleans, arrays, objects).\n' }}
  {{- 'If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking block. Here is an example:\n' }}
  {{- '<' + d + 'function_calls>\n...\n</' + d + 'function_calls>\n<function_results>\n...\n</function_results>\n' }}
  {{- '<think>...thinking about results</think>\nHere are the functions available in JSONSchema format:\n<functions>\n' }}
  {%- for tool in tools %}
    {{- (tool.function or tool) | tojson + ('' if loop.last else '\n') }}
  {%- endfor %}
  {{- '\n</functions>\n' }}
{%- endmacro %}
{{- '<｜begin▁of▁sentence｜>' }}
{%- if tools %}{{ '\n\n' + render_tools(tools) }}{% endif %}
{%- for message in messages %}
  {%- set opens = thinking and loop.index0 >= ns.last_user %}
  {%- if message.role == 'system' %}
    {{- message.content or '' }}
    {%- if message.tools %}{{ '\n\n' + render_tools(message.tools) }}{% endif %}
    {%- if message.response_format %}{{ '\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n' + message.response_format | tojson }}{% endif %}
  {%- elif message.role in ['user', 'developer'] %}
    {{- '<｜User｜>' }}
    {%- if message.role == 'developer' %}
      {%- if message.tools %}{{ '\n\n' + render_tools(message.tools) }}{% endif %}
      {%- if message.response_format %}{{ '\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n' + message.response_format | tojson }}{% endif %}
      {{- "\n\n# The user's message is: " }}
    {%- endif %}
    {{- message.content + '<｜Assistant｜>' + ('<think>' if opens else '</think>') }}
  {%- elif message.role == 'assistant' %}
    {%- if thinking and loop.index0 > ns.last_user %}{{ (message.reasoning_content or '') + '</think>' }}{% endif %}
    {{- message.content or '' }}
    {%- set ns.calls = 0 %}
    {%- set ns.results = 0 %}
    {%- if message.tool_calls %}
      {%- set ns.calls = message.tool_calls | length %}
      {{- '\n\n<' + d + 'function_calls>\n' }}
      {%- for call in message.tool_calls %}
        {%- set call = call.function or call %}
        {{- '<' + d + 'invoke name="' + call.name + '">\n' }}
        {%- for key, value in call.arguments | items %}
          {{- '<' + d + 'parameter name="' + key + '" string="' + ('true' if value is string else 'false') + '">' }}
          {{- (value if value is string else value | tojson) + '</' + d + 'parameter>' + ('' if loop.last else '\n') }}
        {%- endfor %}
        {{- '\n</' + d + 'invoke>\n' }}
      {%- endfor %}
      {{- '</' + d + 'function_calls>' }}
    {%- endif %}
    {{- '<｜end▁of▁sentence｜>' }}
  {%- elif message.role == 'tool' %}
    {%- set ns.results = ns.results + 1 %}
    {%- if ns.results > ns.calls %}{{ raise_exception('a tool result without a tool call before it') }}{% endif %}
    {%- if ns.results == 1 %}{{ '\n\n<function_results>' }}{% endif %}
    {{- '\n<result>' + message.content + '</result>' }}
    {%- if ns.results == ns.calls %}{{ '\n</function_results>\n\n' + ('<think>' if opens else '</think>') }}{% endif %}
  {%- else %}
    {{- raise_exception('DeepSeek V3.2 has turns of system, developer, user, assistant and tool only, got ' ~ message.role) }}
  {%- endif %}
{%- endfor %})jinja";

Json read_object(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const Json value = file ? Json::parse(file, nullptr, false) : Json();
  return value.is_object() ? value : Json::object();
}

std::string text_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

bool has_token(const Json& tokenizer, const char* content) {
  const auto decoder = tokenizer.find("added_tokens_decoder");
  if (decoder == tokenizer.end() || !decoder->is_object()) return false;
  for (const auto& [id, token] : decoder->items()) {
    if (token.is_object() && token.value("content", Json()) == content) return true;
  }
  return false;
}

}  // namespace

std::shared_ptr<const ChatTemplate> built_in_template(const std::filesystem::path& model) {
  const Json tokenizer = read_object(model / "tokenizer_config.json");
  const std::string type = text_of(read_object(model / "config.json"), "model_type");
  const auto make = [](std::string_view source, const char* family) { return std::make_shared<ChatTemplate>(std::string(source), std::string("built-in template of ") + family); };
  if (text_of(tokenizer, "tokenizer_class") == "ChatGLMTokenizer") {
    const bool third = has_token(tokenizer, "<|user|>") || text_of(tokenizer, "name_or_path").find("chatglm3") != std::string::npos;
    return third ? make(kChatGlm3, "ChatGLM3") : make(kChatGlm2, "ChatGLM2");
  }
  if (type == "PanguEmbedded") return make(kPangu, "openPangu");
  if (type == "deepseek_v32") return make(kDeepseek32, "DeepSeek V3.2");
  return nullptr;
}

}  // namespace graft
