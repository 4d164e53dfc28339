// The graft command: parses the line, runs one sub-command, turns exceptions into one paragraph and an exit code (DESIGN section 4).
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>

#include <c10/util/Exception.h>
#include <malloc.h>

#include "kernels/common/error.h"
#include "tools/graft/commands.h"
#include "trainer/report/log_file.h"

namespace graft {

CLI::App* CommandLine::add(const std::string& name, const std::string& description) {
  auto* command = app.add_subcommand(name, description);
  command->add_flag("--json", json, "end with one line of JSON on stdout");
  auto* quiet_flag = command->add_flag("--quiet", quiet, "errors only on stderr");
  command->add_flag("--verbose", verbose, "more on stderr")->excludes(quiet_flag);
  return command;
}

void CommandLine::apply_log_level() const { log().set_level(quiet ? LogLevel::kQuiet : verbose ? LogLevel::kVerbose : LogLevel::kNormal); }

namespace {

int run(int argc, char** argv) {
  CommandLine line;
  line.app.require_subcommand(1);
  line.app.set_version_flag("--version", std::string("graft ") + GRAFT_VERSION);
  line.app.footer("Exit codes: 0 done, 1 the answer is no, 2 wrong input or use, 3 disk, memory or device failure, 130/143 after a saved stop.");
  for (auto* add : {add_plan_command, add_train_command, add_teach_command, add_launch_command, add_export_command, add_verify_command, add_eval_command, add_chat_command, add_tokenize_command,
                    add_render_command, add_logits_command, add_conform_command, add_inspect_command, add_cache_command, add_report_command}) {
    add(line);
  }
  try {
    line.app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const auto commands = line.app.get_subcommands([](const CLI::App*) { return true; });
    if (argc > 1 && argv[1][0] != '-' && std::none_of(commands.begin(), commands.end(), [&](const auto* command) { return command->check_name(argv[1]); })) {
      fail("command", "expected a sub-command, got '{}' — graft --help lists them", argv[1]);
    }
    return line.app.exit(error) == 0 ? 0 : static_cast<int>(ExitCode::kWrongInput);
  }
  line.apply_log_level();
  return line.chosen();
}

}  // namespace
}  // namespace graft

int main(int argc, char** argv) {
  // Scratch tensors of every layer have the same sizes: kept in the heap, their pages are touched once and not given back each time.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  std::signal(SIGXFSZ, SIG_IGN);   // a file beyond a limit is a failed write with an error, as a full disk is
  try {
    return graft::run(argc, argv);
  } catch (const graft::UserError& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(graft::ExitCode::kWrongInput);
  } catch (const graft::MachineError& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(graft::ExitCode::kMachineFailed);
  } catch (const c10::OutOfMemoryError&) {
    std::fprintf(stderr, "error: [graft.memory] the GPU has no memory left — lower data.pack_tokens, set run.recompute: layer, or run.device: cpu\n");
    return static_cast<int>(graft::ExitCode::kMachineFailed);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "error: [graft.memory] the machine has no memory left — lower data.pack_tokens or set run.recompute: layer\n");
    return static_cast<int>(graft::ExitCode::kMachineFailed);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: [graft.internal] %s\n", error.what());
    return static_cast<int>(graft::ExitCode::kMachineFailed);
  }
}
