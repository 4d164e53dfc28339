// The sub-commands, one file each. A command registers its options and, when chosen, stores what runs it and gives the exit code.
#pragma once
#include <functional>
#include <string>

#include <CLI/CLI.hpp>

namespace graft {

struct CommandLine {
  CLI::App app{"graft: fine-tune and distil open language models on your own servers; served = trained, proven"};
  std::function<int()> chosen;        // set by the sub-command that was given
  bool json = false;                  // one final JSON line on stdout
  bool quiet = false, verbose = false;

  void apply_log_level() const;
  // A sub-command with the options that all share.
  CLI::App* add(const std::string& name, const std::string& description);
};

void add_plan_command(CommandLine& line);
void add_train_command(CommandLine& line);
void add_teach_command(CommandLine& line);
void add_launch_command(CommandLine& line);
void add_export_command(CommandLine& line);
void add_verify_command(CommandLine& line);
void add_eval_command(CommandLine& line);
void add_chat_command(CommandLine& line);
void add_tokenize_command(CommandLine& line);
void add_render_command(CommandLine& line);
void add_logits_command(CommandLine& line);
void add_conform_command(CommandLine& line);
void add_inspect_command(CommandLine& line);
void add_cache_command(CommandLine& line);
void add_report_command(CommandLine& line);

}  // namespace graft
