// What people see: messages on stderr, results on stdout, and log.txt with every line shown.
//
// One Log serves the process. Lines logged before open() are kept and written first, so that log.txt holds the plan too. A status line
// (the progress bar) stays below the lines on a terminal; it is not part of the log. All functions may be called from any thread.
#pragma once
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/report/append_file.h"

namespace graft {

enum class LogLevel { kQuiet, kNormal, kVerbose };   // --quiet: errors and warnings only; --verbose: details too

class Log {
 public:
  explicit Log(FILE* messages = stderr, FILE* results = stdout);

  void set_level(LogLevel level);
  // From now on every line is also appended to `path` (mode 0600).
  void open(const std::filesystem::path& path);
  void close();

  void error(std::string_view text);     // "error: ..."; always shown
  void warning(std::string_view text);   // "warning: ..."; always shown
  void info(std::string_view text);
  void detail(std::string_view text);    // with --verbose only
  void result(std::string_view text);    // on stdout, as it is; always shown

  // The line below all others; empty removes it. Only on a terminal; at most columns() wide, longer ones are cut.
  void set_status(std::string_view text);
  bool has_terminal() const { return terminal_; }
  bool has_colour() const { return colour_; }   // a terminal, and NO_COLOR is not set
  bool shows_progress() const;                  // not with --quiet
  int columns() const;                          // of the terminal; 80 elsewhere

 private:
  void line(FILE* stream, std::string_view text, std::string_view mark, const char* colour);
  void write_to_file(std::string_view text);

  mutable std::mutex mutex_;
  FILE* messages_;
  FILE* results_;
  bool terminal_, colour_;
  LogLevel level_ = LogLevel::kNormal;
  AppendFile file_;
  std::vector<std::string> early_lines_;
  std::string status_;
};

// The process's log.
Log& log();

// A line as an artefact may hold it: absolute paths become ~/..., relative ones, or …/name, so that log.txt holds no host's layout or user's name.
std::string without_absolute_paths(std::string_view text);

}  // namespace graft
