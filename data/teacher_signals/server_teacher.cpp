#include "data/teacher_signals/server_teacher.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <thread>

#include "data/teacher_signals/http_client.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

using PlainJson = nlohmann::json;

constexpr int kTries = 5;                  // of a server that asks to wait
constexpr double kLongestWait = 60;        // seconds
constexpr double kNothing = -1000;         // nats: what servers write of tokens that their sampler has cut off

// Seconds until the next try, as the server asks or doubling.
double wait_before(const HttpAnswer& answer, int tried) {
  char* end = nullptr;
  const double asked = std::strtod(answer.retry_after.c_str(), &end);
  const bool given = end != answer.retry_after.c_str() && *end == '\0' && asked >= 0;
  return std::min(given ? asked : static_cast<double>(1 << tried), kLongestWait);
}

// Some servers write special tokens as nothing; parts of a character cannot stand in JSON.
bool tells_token(const std::string& text) { return !text.empty() && text.find("\xef\xbf\xbd") == text.npos; }

bool is_letters(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); });
}

}  // namespace

std::string key_of_variable(const std::string& name) {
  if (name.empty()) return {};
  const char* value = std::getenv(name.c_str());
  if (!value || !*value) fail("teacher", "expected the server's key in the environment variable {}, got none — set it, or take teacher.key_env out", name);
  const std::string key = value;
  if (std::any_of(key.begin(), key.end(), [](unsigned char c) { return c <= ' ' || c >= 0x7f; })) {
    fail("teacher", "expected a key of printable characters without spaces in the environment variable {}, got others — set it anew", name);
  }
  return key;
}

ServerTeacher::ServerTeacher(ServerOptions options, const Tokenizer& tokenizer, const std::string& first_row, std::function<bool()> stopped, std::function<void(const std::string&)> log)
    : options_(std::move(options)), tokenizer_(tokenizer), stopped_(std::move(stopped)), log_(std::move(log)) {
  ask_for_model(first_row);
  for (int32_t id = 0; id < tokenizer_.vocab_size() && !plain_token_; ++id) {
    if (!tokenizer_.is_special(id) && is_letters(tokenizer_.token_bytes(id))) plain_token_ = id;
  }
}

// What came from the server may hold what was sent to it.
std::string ServerTeacher::shown(std::string text) const {
  if (options_.key.empty()) return text;
  for (size_t at = text.find(options_.key); at != text.npos; at = text.find(options_.key, at + 3)) text.replace(at, options_.key.size(), "...");
  return text;
}

void ServerTeacher::refuse(const std::string& expected, const std::string& got, const std::string& place, const std::string& advice) const {
  fail("teacher", "expected {}, got {} ({}, server {}) — {}; finished rows are kept, and `graft teach` goes on from there", expected, shown(got), place, options_.address.host, advice);
}

void ServerTeacher::refuse_status(const HttpAnswer& answer, const std::string& place) const {
  const auto status = answer.status;
  const auto got = fmt::format("HTTP {}: \"{}\"", status, server_message(shown(answer.body)));
  if (status == 401 || status == 403) {
    refuse(options_.key.empty() ? "a server that asks for no key" : fmt::format("the server to accept the key of {}", options_.key_variable), got, place,
           options_.key.empty() ? "name the environment variable that holds its key as teacher.key_env" : "set the right key");
  }
  if (status == 404) refuse("a completions server", got, place, "teacher.server is what stands before /completions in its URL, most often ending in /v1, teacher.server_model a model there");
  if (status == 429) refuse(fmt::format("an answer within {} tries", kTries), got, place, "try again later");
  if (status >= 300 && status < 400) refuse("an answer", fmt::format("HTTP {}, which says that it is elsewhere", status), place, "graft follows no redirect: name the new URL as teacher.server");
  refuse("an answer", got, place, status >= 500 ? "see the server's log" : "see what the server allows: its context, its tokens, teacher.count likeliest tokens of each (vLLM: --max-logprobs)");
}

std::optional<HttpAnswer> ServerTeacher::send(const std::string& path, const std::string& body, const std::string& place) const {
  HttpRequest request;
  request.url = options_.address.url + path;
  request.body = body;
  request.key = options_.key;
  request.loopback = options_.address.loopback;
  request.answer_seconds = options_.answer_seconds;
  for (int tried = 0;; ++tried) {
    if (stopped_()) return std::nullopt;
    auto answer = send_http(request);
    if (!answer.error.empty()) {
      refuse(fmt::format("an answer within {:g} seconds (teacher.answer_seconds)", options_.answer_seconds), fmt::format("\"{}\"", answer.error), place,
             "does the server run there, and is it quick enough?");
    }
    if (answer.status != 429 || tried + 1 == kTries) return answer;
    const double seconds = wait_before(answer, tried);
    log_(fmt::format("the server asks to wait: {:g} seconds ({})", seconds, place));
    const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (std::chrono::steady_clock::now() < until && !stopped_()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

PlainJson ServerTeacher::parsed(const HttpAnswer& answer, const std::string& place) const {
  auto json = PlainJson::parse(answer.body, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) refuse("an answer in JSON", fmt::format("\"{}\"", server_message(shown(answer.body))), place, "is teacher.server the URL of a completions server?");
  return json;
}

void ServerTeacher::ask_for_model(const std::string& place) {
  served_ = {{"id", options_.model}};
  const auto answer = send("/models", "", place);
  if (!answer) return;   // stopped
  if (answer->status == 404 || answer->status == 405 || answer->status == 501) {
    if (options_.model.empty()) refuse("a server that lists its models", fmt::format("HTTP {}", answer->status), place, "name the model as teacher.server_model");
    return;
  }
  if (answer->status != 200) refuse_status(*answer, place);
  const auto json = parsed(*answer, place);
  std::string names;
  const PlainJson* chosen = nullptr;
  const auto list = json.is_object() && json.contains("data") && json["data"].is_array() ? json["data"] : PlainJson::array();
  for (const auto& model : list) {
    if (!model.is_object() || !model.contains("id") || !model["id"].is_string()) continue;
    const auto id = model["id"].get<std::string>();
    const auto aliases = model.value("aliases", PlainJson::array());
    if (options_.model.empty() ? list.size() == 1 : id == options_.model || std::find(aliases.begin(), aliases.end(), options_.model) != aliases.end()) chosen = &model;
    if (names.size() < 300) names += (names.empty() ? "" : ", ") + id;
  }
  if (!chosen) {
    refuse(options_.model.empty() ? "one model on the server" : fmt::format("the model {} on the server", options_.model), names.empty() ? "none" : names, place,
           "name one of them as teacher.server_model");
  }
  // What stays as long as the model does; its "created" is the time of asking with some servers.
  served_["id"] = (*chosen)["id"];
  for (const char* key : {"root", "owned_by"}) {
    if (chosen->contains(key)) served_[key] = (*chosen)[key];
  }
  if (const auto meta = chosen->find("meta"); meta != chosen->end() && meta->is_object()) {
    for (const char* key : {"n_vocab", "n_embd", "n_params", "size", "ftype"}) {
      if (meta->contains(key)) served_[key] = (*meta)[key];
    }
  }
  if (options_.model.empty()) options_.model = served_["id"].get<std::string>();
}

std::optional<PlainJson> ServerTeacher::ask(ServerForm form, std::span<const int32_t> ids, const std::string& place, std::optional<int32_t> forced) const {
  const auto answer = send("/completions", completion_request(form, options_.model, ids, options_.form.num_entries, forced), place);
  if (!answer) return std::nullopt;
  if (answer->status != 200) refuse_status(*answer, place);
  auto json = parsed(*answer, place);
  if (const auto read = tokens_read(json); read && *read != static_cast<int64_t>(ids.size())) {
    refuse(fmt::format("a server that reads the {} tokens it is sent", ids.size()), fmt::format("{}", *read), place, "let the server add none (BOS) and cut none (its context)");
  }
  return json;
}

// llama.cpp's server leaves the log-probabilities out where the token that it drew ends within a character: it is then made to draw a plain one, by a bias that does not
// reach the probabilities which it reports.
std::optional<std::vector<ServedToken>> ServerTeacher::ask_for_next(std::span<const int32_t> ids, const std::string& place) const {
  auto answer = ask(ServerForm::kNextToken, ids, place);
  if (!answer) return std::nullopt;
  auto tokens = served_tokens(ServerForm::kNextToken, *answer, 0);
  if (!tokens.empty() || !plain_token_) return tokens;
  answer = ask(ServerForm::kNextToken, ids, place, plain_token_);
  if (!answer) return std::nullopt;
  tokens = served_tokens(ServerForm::kNextToken, *answer, 0);
  for (const auto& token : tokens) {
    if (token.id == plain_token_ && token.log_probability > std::log(0.5)) refuse("log-probabilities of the model's own distribution", "those behind logit_bias", place, "take another server");
  }
  return tokens;
}

// By one request in each form, the quickest first: servers ignore what they do not know, or refuse it.
bool ServerTeacher::find_form(std::span<const int32_t> ids, const std::string& place) {
  std::optional<HttpAnswer> refused;
  const std::pair<ServerForm, std::optional<int32_t>> tries[] = {{ServerForm::kScoresPrompt, {}}, {ServerForm::kEchoes, {}}, {ServerForm::kNextToken, {}}, {ServerForm::kNextToken, plain_token_}};
  for (const auto& [form, forced] : tries) {
    const auto answer = send("/completions", completion_request(form, options_.model, ids, options_.form.num_entries, forced), place);
    if (!answer) return false;
    const auto status = answer->status;
    if (status == 400 || status == 422 || status == 500 || status == 501) {
      refused = answer;
      continue;
    }
    if (status != 200) refuse_status(*answer, place);
    refused.reset();
    if (!answers_as(form, parsed(*answer, place), ids.size())) continue;
    form_ = form;
    log_(fmt::format("the server answers {}", form == ServerForm::kNextToken ? "for one token at a time: one request for each supervised token" : "for whole rows: one request for each"));
    return true;
  }
  if (refused) refuse_status(*refused, place);
  refuse("log-probabilities of tokens", "an answer without them", place, "let the server give them (logprobs), or take another server");
}

bool ServerTeacher::teach(SignalEncoder& encoder, std::span<const int32_t> ids, std::span<const uint8_t> taught, const std::string& place) {
  std::vector<size_t> targets;
  for (size_t i = 1; i < ids.size(); ++i) {
    if (taught[i]) targets.push_back(i);
  }
  if (targets.empty()) return true;
  if (!form_ && !find_form(ids, place)) return false;
  if (*form_ == ServerForm::kNextToken) {
    for (const size_t target : targets) {
      const auto tokens = ask_for_next(ids.first(target), place);
      if (!tokens) return false;
      add(encoder, *tokens, place);
    }
    return true;
  }
  const auto answer = ask(*form_, ids, place);
  if (!answer) return false;
  if (*form_ == ServerForm::kEchoes) {
    const auto echoed = echoed_tokens(*answer);
    for (size_t i = 0; i < std::min(echoed.size(), ids.size()); ++i) check_same_token(ids[i], echoed[i].text, place);
  }
  for (const size_t target : targets) add(encoder, served_tokens(*form_, *answer, target), place);
  return true;
}

void ServerTeacher::add(SignalEncoder& encoder, const std::vector<ServedToken>& tokens, const std::string& place) const {
  const auto count = options_.form.num_entries;
  struct Entry {
    int32_t id;
    double log_probability;
  };
  std::vector<Entry> entries;
  for (const auto& token : tokens) {
    if (!(token.log_probability <= 1e-3)) refuse("log-probabilities of tokens", "none, or some above 0", place, "let the server give them (logprobs), or take another server");
    if (token.log_probability < kNothing) {
      refuse("log-probabilities of the whole distribution", fmt::format("{:g} of a token", token.log_probability), place,
             "let the server give those of the model, before top-k, top-p and penalties (vLLM: --logprobs-mode raw_logprobs)");
    }
    entries.push_back({id_of(token, place), token.log_probability});
  }
  if (static_cast<int64_t>(entries.size()) < count) {
    refuse(fmt::format("the {} likeliest tokens (teacher.count)", count), fmt::format("{}", entries.size()), place,
           entries.empty() ? "let the server give log-probabilities, or take another server" : "lower teacher.count, or raise the server's limit (vLLM: --max-logprobs)");
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.log_probability != b.log_probability ? a.log_probability > b.log_probability : a.id < b.id; });
  entries.resize(static_cast<size_t>(count));   // some servers add the row's own token
  std::vector<int32_t> ids;
  std::vector<float> log_probabilities;
  double tail = 1;
  for (const auto& entry : entries) {
    ids.push_back(entry.id);
    log_probabilities.push_back(static_cast<float>(entry.log_probability));
    tail -= std::exp(entry.log_probability);
  }
  auto sorted = ids;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) refuse("each token once", "one of them again", place, "take another server");
  if (tail < -0.01) refuse("probabilities that sum to at most 1", fmt::format("{:g}", 1 - tail), place, "let the server give those of the model at temperature 1");
  encoder.add_top(ids, log_probabilities, std::max(0.0, tail));
}

void ServerTeacher::check_same_token(int64_t id, const std::optional<std::string>& text, const std::string& place) const {
  if (id < 0 || id >= options_.form.vocab_size) {
    refuse("ids of the student's vocabulary", fmt::format("{}, of which it has {}", id, options_.form.vocab_size), place, "take a teacher of the same tokenizer");
  }
  if (!text || !tells_token(*text) || id >= tokenizer_.vocab_size()) return;   // the latter: padding
  const auto ours = tokenizer_.token_bytes(static_cast<int32_t>(id));
  if (*text == ours || (ours.starts_with(' ') && *text == std::string_view(ours).substr(1))) return;   // some write tokens without the space before them
  refuse("a server with the student's tokens", fmt::format("id {}, which is {:?} to the student and {:?} to the server", id, ours, *text), place, "take a teacher of the same tokenizer");
}

int32_t ServerTeacher::id_of(const ServedToken& token, const std::string& place) const {
  if (token.id) {
    check_same_token(*token.id, token.text, place);
    return static_cast<int32_t>(*token.id);
  }
  if (ids_of_texts_.empty()) {
    for (int32_t id = 0; id < tokenizer_.vocab_size(); ++id) {
      const auto [found, is_new] = ids_of_texts_.try_emplace(tokenizer_.token_bytes(id), id);
      if (!is_new) found->second = -1;
    }
  }
  const auto text = token.text.value_or("");
  const auto found = ids_of_texts_.find(text);
  if (found == ids_of_texts_.end() || found->second < 0) {
    refuse("ids, or texts that each are one token of the student", fmt::format("the text {:?}, which is {}", text, found == ids_of_texts_.end() ? "none" : "several"), place,
           "take a server that gives ids, as vLLM and llama.cpp do, and a teacher of the same tokenizer");
  }
  return found->second;
}

}  // namespace graft
