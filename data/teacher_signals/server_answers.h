// Requests to a completions server and what its answers say of the next token, in the three forms that there are.
//
//   kScoresPrompt  prompt_logprobs: of every token of the prompt, by id (vLLM)
//   kEchoes        echo and logprobs: of every token of the prompt, by text (llama-cpp-python, SGLang and others)
//   kNextToken     logprobs: of the one token that follows the prompt, by id and bytes (llama.cpp's server) or by text
// In all of them the prompt is an array of ids, and probabilities are the model's own: temperature 1, nothing cut.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace graft {

enum class ServerForm { kScoresPrompt, kEchoes, kNextToken };

// forced: the token that the server is to draw, where there is one.
std::string completion_request(ServerForm form, const std::string& model, std::span<const int32_t> ids, int64_t count, std::optional<int32_t> forced = std::nullopt);

// Whether an answer to a prompt of `num_ids` has probabilities in this form.
bool answers_as(ServerForm form, const nlohmann::json& answer, size_t num_ids);

struct ServedToken {
  std::optional<int64_t> id;
  std::optional<std::string> text;   // or bytes
  double log_probability = 0;        // NaN: none
};

// The likeliest tokens at `position` of the prompt, given those before it; kNextToken: behind the prompt. Empty where the answer has none.
std::vector<ServedToken> served_tokens(ServerForm form, const nlohmann::json& answer, size_t position);
// How many tokens the prompt had to the server, where it says so.
std::optional<int64_t> tokens_read(const nlohmann::json& answer);
// kEchoes: the prompt's tokens as the server reads them.
std::vector<ServedToken> echoed_tokens(const nlohmann::json& answer);

// What an answer that is no success says, in one line of at most 300 characters.
std::string server_message(const std::string& body);

}  // namespace graft
