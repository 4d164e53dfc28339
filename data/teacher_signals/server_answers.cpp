#include "data/teacher_signals/server_answers.h"

#include <charconv>
#include <cmath>
#include <string_view>

namespace graft {
namespace {

using PlainJson = nlohmann::json;   // ordered, an object of many keys takes the square of their number

// null where there is nothing of that name or place, whatever `value` is.
const PlainJson& at(const PlainJson& value, const char* key) {
  static const PlainJson kNothing;
  const auto found = value.is_object() ? value.find(key) : value.end();
  return value.is_object() && found != value.end() ? *found : kNothing;
}
const PlainJson& at(const PlainJson& value, size_t index) {
  static const PlainJson kNothing;
  return value.is_array() && index < value.size() ? value[index] : kNothing;
}

const PlainJson& first_choice(const PlainJson& answer) { return at(at(answer, "choices"), size_t{0}); }

std::optional<int64_t> number_of(std::string_view digits) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (digits.empty() || error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

double number_or_nan(const PlainJson& value) { return value.is_number() ? value.get<double>() : std::nan(""); }

// vLLM writes "token_id:17" where it is asked for ids.
ServedToken token_of(const std::string& text, double log_probability) {
  constexpr std::string_view kMark = "token_id:";
  const auto id = text.starts_with(kMark) ? number_of(std::string_view(text).substr(kMark.size())) : std::nullopt;
  if (id) return {id, std::nullopt, log_probability};
  return {std::nullopt, text, log_probability};
}

std::vector<ServedToken> tokens_by_text(const PlainJson& object) {
  std::vector<ServedToken> tokens;
  if (!object.is_object()) return tokens;
  for (const auto& [text, value] : object.items()) tokens.push_back(token_of(text, number_or_nan(value)));
  return tokens;
}

std::vector<ServedToken> tokens_by_id(const PlainJson& object) {
  std::vector<ServedToken> tokens;
  if (!object.is_object()) return tokens;
  for (const auto& [id, value] : object.items()) {
    const PlainJson& text = at(value, "decoded_token");
    tokens.push_back({number_of(id).value_or(-1), text.is_string() ? std::optional(text.get<std::string>()) : std::nullopt, number_or_nan(at(value, "logprob"))});
  }
  return tokens;
}

// [{"id", "token", "bytes", "logprob"}]; OpenAI's has no id.
std::vector<ServedToken> tokens_of_list(const PlainJson& list) {
  std::vector<ServedToken> tokens;
  if (!list.is_array()) return tokens;
  for (const auto& entry : list) {
    ServedToken token{std::nullopt, std::nullopt, number_or_nan(at(entry, "logprob"))};
    if (const PlainJson& id = at(entry, "id"); id.is_number_integer()) token.id = id.get<int64_t>();
    if (const PlainJson& bytes = at(entry, "bytes"); bytes.is_array()) {
      token.text.emplace();
      for (const auto& byte : bytes) *token.text += static_cast<char>(byte.is_number_integer() ? byte.get<int>() : 0);
    } else if (const PlainJson& text = at(entry, "token"); text.is_string()) {
      token.text = text.get<std::string>();
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace

std::string completion_request(ServerForm form, const std::string& model, std::span<const int32_t> ids, int64_t count, std::optional<int32_t> forced) {
  nlohmann::ordered_json request = {{"model", model}, {"prompt", std::vector<int32_t>(ids.begin(), ids.end())}, {"max_tokens", 1}, {"temperature", 1}, {"top_p", 1}};
  request[form == ServerForm::kScoresPrompt ? "prompt_logprobs" : "logprobs"] = count;
  if (form == ServerForm::kEchoes) request["echo"] = true;
  if (forced) request["logit_bias"] = {{std::to_string(*forced), 100}};
  return request.dump();
}

bool answers_as(ServerForm form, const PlainJson& answer, size_t num_ids) {
  const PlainJson& choice = first_choice(answer);
  const PlainJson& top = at(at(choice, "logprobs"), "top_logprobs");
  if (form == ServerForm::kScoresPrompt) return at(choice, "prompt_logprobs").is_array() && at(choice, "prompt_logprobs").size() == num_ids;
  if (form == ServerForm::kEchoes) return num_ids > 1 && top.is_array() && top.size() >= num_ids;
  return !served_tokens(form, answer, 0).empty();
}

std::vector<ServedToken> served_tokens(ServerForm form, const PlainJson& answer, size_t position) {
  const PlainJson& choice = first_choice(answer);
  const PlainJson& logprobs = at(choice, "logprobs");
  if (form == ServerForm::kScoresPrompt) return tokens_by_id(at(at(choice, "prompt_logprobs"), position));
  if (form == ServerForm::kEchoes) return tokens_by_text(at(at(logprobs, "top_logprobs"), position));
  auto tokens = tokens_of_list(at(at(at(logprobs, "content"), size_t{0}), "top_logprobs"));
  return tokens.empty() ? tokens_by_text(at(at(logprobs, "top_logprobs"), size_t{0})) : tokens;
}

std::optional<int64_t> tokens_read(const PlainJson& answer) {
  const PlainJson& count = at(at(answer, "usage"), "prompt_tokens");
  return count.is_number_integer() ? std::optional(count.get<int64_t>()) : std::nullopt;
}

std::vector<ServedToken> echoed_tokens(const PlainJson& answer) {
  std::vector<ServedToken> tokens;
  const PlainJson& texts = at(at(first_choice(answer), "logprobs"), "tokens");
  if (!texts.is_array()) return tokens;
  for (const auto& text : texts) tokens.push_back(text.is_string() ? token_of(text.get<std::string>(), 0) : ServedToken());
  return tokens;
}

std::string server_message(const std::string& body) {
  constexpr size_t kMost = 300;
  const auto json = PlainJson::parse(body, nullptr, /*allow_exceptions=*/false);
  std::string message = body;
  for (const PlainJson* candidate : {&at(at(json, "error"), "message"), &at(json, "error"), &at(json, "message"), &at(json, "detail")}) {
    if (!candidate->is_string()) continue;
    message = candidate->get<std::string>();
    break;
  }
  std::string line;
  for (const char c : message.substr(0, kMost)) line += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  return message.size() > kMost ? line + " ..." : line;
}

}  // namespace graft
