// A teacher behind an OpenAI-compatible completions server: what it says of the taught tokens of a row, given the tokens before them (teacher forcing).
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>

#include <nlohmann/json.hpp>

#include "data/http_module/http_module.h"
#include "data/teacher_signals/server_address.h"
#include "data/teacher_signals/server_answers.h"
#include "data/teacher_signals/signal_codec.h"
#include "data/tokenizers/tokenizer.h"

namespace graft {

struct ServerOptions {
  ServerAddress address;
  std::string model;            // as the server names it; empty: the only one that it lists
  std::string key;              // sent as a bearer token and nowhere else; empty: none
  std::string key_variable;     // where it came from: for messages
  double answer_seconds = 120;
  SignalForm form;              // kTop; ids are below its vocab_size
};

// Of an environment variable; "" for no name. UserError where it is not set, or no key can look like that.
std::string key_of_variable(const std::string& name);

class ServerTeacher {
 public:
  // Asks which model answers there. `first_row`: on whose behalf, for messages. stopped: whether to ask no more; log: one line. The tokenizer must outlive this.
  ServerTeacher(ServerOptions options, const Tokenizer& tokenizer, const std::string& first_row, std::function<bool()> stopped, std::function<void(const std::string&)> log);

  // What it says of its model: {"id", ...}. Decides, with its address, whose signals these are.
  const nlohmann::ordered_json& served() const { return served_; }
  // Adds the row's taught tokens but its first, in order. place: "rows.jsonl:17". False where it was stopped before the last one. UserError naming row and host for
  // a server that does not answer, refuses, has no log-probabilities or other tokens than the student.
  bool teach(SignalEncoder& encoder, std::span<const int32_t> ids, std::span<const uint8_t> taught, const std::string& place);

 private:
  std::optional<HttpAnswer> send(const std::string& path, const std::string& body, const std::string& place) const;
  std::optional<nlohmann::json> ask(ServerForm form, std::span<const int32_t> ids, const std::string& place, std::optional<int32_t> forced = std::nullopt) const;
  std::optional<std::vector<ServedToken>> ask_for_next(std::span<const int32_t> ids, const std::string& place) const;
  nlohmann::json parsed(const HttpAnswer& answer, const std::string& place) const;
  void ask_for_model(const std::string& place);
  bool find_form(std::span<const int32_t> ids, const std::string& place);
  void add(SignalEncoder& encoder, const std::vector<ServedToken>& tokens, const std::string& place) const;
  void check_same_token(int64_t id, const std::optional<std::string>& text, const std::string& place) const;
  int32_t id_of(const ServedToken& token, const std::string& place) const;
  std::string shown(std::string text) const;
  [[noreturn]] void refuse(const std::string& expected, const std::string& got, const std::string& place, const std::string& advice) const;
  [[noreturn]] void refuse_status(const HttpAnswer& answer, const std::string& place) const;

  ServerOptions options_;
  const Tokenizer& tokenizer_;
  std::function<bool()> stopped_;
  std::function<void(const std::string&)> log_;
  nlohmann::ordered_json served_;
  std::optional<ServerForm> form_;   // found with the first row
  std::optional<int32_t> plain_token_;   // of letters alone
  mutable std::unordered_map<std::string, int32_t> ids_of_texts_;   // of servers that give no ids; -1: several tokens
};

}  // namespace graft
