// graft chat MODEL [--adapter DIR] [--prompt TEXT]: interactive, or one answer.
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "kernels/common/error.h"
#include "tools/graft/commands.h"
#include "trainer/runs/loaded_model.h"
#include "trainer/generation/chat_session.h"
#include "trainer/report/log_file.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string model, adapter, compute = "bfloat16", system;
  std::optional<std::string> prompt;
  GenerationOptions generation;
  bool compare = false;
};

std::atomic<bool> interrupted = false;
void interrupt(int) { interrupted = true; }

constexpr const char* kHelp =
    "/exit leaves, /reset begins anew, /base and /adapter switch the adapter off and on, /help shows this; Ctrl-C stops an answer";

// Base and adapter each have a conversation of their own with the same user: what one has said is not put into the other's mouth.
class Chat {
 public:
  Chat(LoadedModel& model, const Options& options, bool json)
      : model_(model), options_(options), json_(json), base_(*model.decoder, model.context, options.system), adapted_(*model.decoder, model.context, options.system),
        use_adapter_(model.adapters != nullptr) {
    if (options.compare && !model.adapters) {
      fail("chat", "expected an adapter to compare with the base, got a MODEL without one — give --adapter DIR or a run folder");
    }
  }

  void answer(const std::string& text) {
    interrupted = false;
    if (!options_.compare) {
      say(text, use_adapter_, "");
      return;
    }
    say(text, false, "base: ");
    if (!interrupted) say(text, true, "adapter: ");
  }

  // False: leave.
  bool command(const std::string& line) {
    if (line == "/exit" || line == "/quit") return false;
    if (line == "/reset") {
      base_.reset();
      adapted_.reset();
      log().info("a new conversation");
    } else if (line == "/base" || line == "/adapter") {
      if (!model_.adapters) {
        log().warning("there is no adapter: give --adapter DIR or a run folder");
      } else {
        use_adapter_ = line == "/adapter";
        log().info(use_adapter_ ? "answers come from the adapter; its conversation goes on" : "answers come from the base; its conversation goes on");
      }
    } else {
      log().info(line == "/help" ? kHelp : fmt::format("unknown command {}; {}", line, kHelp));
    }
    return true;
  }

 private:
  void say(const std::string& text, bool with_adapter, const char* heading) {
    if (model_.adapters) model_.adapters->set_enabled(with_adapter);
    auto& session = with_adapter ? adapted_ : base_;
    if (!json_) std::fputs(heading, stdout);
    const auto started = std::chrono::steady_clock::now();
    const auto answer = session.answer(text, options_.generation, [&](std::string_view piece) {
      if (!json_) {
        std::fwrite(piece.data(), 1, piece.size(), stdout);
        std::fflush(stdout);
      }
      return !interrupted;
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    const auto tokens = static_cast<int64_t>(answer.ids.size());
    if (json_) {
      Json line = {{"model", with_adapter ? "adapter" : "base"}, {"text", answer.text}, {"stop", stop_reason_name(answer.stop)}, {"tokens", tokens},
                   {"prompt_tokens_read", session.tokens_read()}, {"seconds", seconds}};
      std::puts(line.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
    } else {
      std::fputs("\n", stdout);
    }
    std::fflush(stdout);
    log().detail(fmt::format("{} tokens, {:.1f} a second, {} prompt tokens read, ended by {}", tokens, static_cast<double>(tokens) / std::max(seconds, 1e-9),
                             session.tokens_read(), stop_reason_name(answer.stop)));
    if (answer.stop == StopReason::kMaxTokens) log().info(fmt::format("(cut at --max-tokens {})", options_.generation.max_new_tokens));
    if (answer.stop == StopReason::kContextFull) log().warning("the model's context is full: /reset begins anew");
  }

  LoadedModel& model_;
  const Options& options_;
  bool json_;
  ChatSession base_, adapted_;
  bool use_adapter_;
};

// One line of the user; nothing at the end of input.
std::optional<std::string> read_line(bool terminal) {
  if (terminal) std::fputs("> ", stderr);
  std::string line;
  while (!std::getline(std::cin, line)) {
    if (!interrupted) return std::nullopt;
    interrupted = false;   // Ctrl-C at the prompt
    std::cin.clear();
    std::clearerr(stdin);
    if (terminal) std::fputs("\n(/exit or Ctrl-D leaves)\n> ", stderr);
  }
  return line;
}

int run(const Options& options, bool json) {
  check_sampling(options.generation.sampling);
  auto model = load_model(options.model, options.adapter, options.compute);
  Chat chat(model, options, json);
  struct sigaction action{};
  action.sa_handler = interrupt;   // without SA_RESTART: it also ends the reading of a line
  sigaction(SIGINT, &action, nullptr);
  if (options.prompt) {
    chat.answer(*options.prompt);
    return interrupted ? 130 : 0;
  }
  const bool terminal = isatty(STDIN_FILENO) != 0;
  if (terminal) log().info(kHelp);
  while (const auto line = read_line(terminal)) {
    if (line->find_first_not_of(" \t\r") == std::string::npos) continue;
    try {
      if (!line->starts_with('/')) chat.answer(*line);
      else if (!chat.command(*line)) break;
    } catch (const UserError& error) {   // a conversation that is too long, a template that refuses: the next turn may do
      if (!terminal) throw;
      log().error(error.what());
    }
  }
  return 0;
}

}  // namespace

void add_chat_command(CommandLine& line) {
  auto* command = line.add("chat", "talk to a model: interactive, or one answer with --prompt");
  auto options = std::make_shared<Options>();
  auto& generation = options->generation;
  auto& sampling = generation.sampling;
  generation.max_new_tokens = 512;
  command->add_option("MODEL", options->model, "model directory, .gguf file or run folder")->required();
  command->add_option("--adapter", options->adapter, "PEFT folder");
  command->add_option("--prompt", options->prompt, "answer this and leave");
  command->add_option("--system", options->system, "system message");
  command->add_option("--temperature", sampling.temperature, "0: the most probable token each time")->capture_default_str();
  command->add_option("--top-p", sampling.top_p, "draw from the fewest tokens whose probabilities reach this")->capture_default_str();
  command->add_option("--top-k", sampling.top_k, "draw from this many tokens; 0: all")->capture_default_str();
  command->add_option("--min-p", sampling.min_p, "draw from tokens of at least this share of the highest probability")->capture_default_str();
  command->add_option("--repetition-penalty", sampling.repetition_penalty, "above 1: tokens that were there become less probable")->capture_default_str();
  command->add_option("--seed", sampling.seed, "of the draws")->capture_default_str();
  command->add_option("--max-tokens", generation.max_new_tokens, "of one answer")->check(CLI::PositiveNumber)->capture_default_str();
  command->add_option("--compute", options->compute, "float32 or bfloat16")->check(CLI::IsMember({"float32", "bfloat16"}))->capture_default_str();
  command->add_flag("--compare", options->compare, "answer with the base and with the adapter");
  command->callback([=, &line] { line.chosen = [=, &line] { return run(*options, line.json); }; });
}

}  // namespace graft
