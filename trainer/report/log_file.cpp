#include "trainer/report/log_file.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <ctime>

#include <fmt/format.h>

#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr size_t kMaxEarlyLines = 10'000;

std::string time_of_day() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

// The first `columns` characters of UTF-8 text (each counted as one column wide).
std::string_view cut_to_columns(std::string_view text, int columns) {
  int count = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((text[i] & 0xC0) != 0x80 && ++count > columns) return text.substr(0, i);
  }
  return text;
}

// Without colours and other escape sequences (ESC [ ... letter).
std::string without_escapes(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\x1b') {
      out += text[i];
      continue;
    }
    while (i + 1 < text.size() && !std::isalpha(static_cast<unsigned char>(text[i]))) ++i;
  }
  return out;
}

bool is_path_character(char character) {
  return std::string_view(" \t\n'\"`()<>[]{},;:|*?=").find(character) == std::string_view::npos;
}

}  // namespace

Log::Log(FILE* messages, FILE* results) : messages_(messages), results_(results) {
  const char* terminal_name = std::getenv("TERM");
  const char* no_colour = std::getenv("NO_COLOR");
  terminal_ = ::isatty(::fileno(messages)) == 1 && !(terminal_name != nullptr && std::string_view(terminal_name) == "dumb");
  colour_ = terminal_ && (no_colour == nullptr || *no_colour == '\0');   // https://no-color.org
}

void Log::set_level(LogLevel level) {
  const std::lock_guard lock(mutex_);
  level_ = level;
}

bool Log::shows_progress() const {
  const std::lock_guard lock(mutex_);
  return level_ != LogLevel::kQuiet;
}

void Log::open(const std::filesystem::path& path) {
  const std::lock_guard lock(mutex_);
  file_ = AppendFile(path);
  for (const std::string& early : early_lines_) file_.append(early);
  early_lines_.clear();
}

void Log::close() {
  const std::lock_guard lock(mutex_);
  file_ = AppendFile();
}

void Log::error(std::string_view text) { line(messages_, text, "error: ", "\x1b[31m"); }
void Log::warning(std::string_view text) { line(messages_, text, "warning: ", "\x1b[33m"); }
void Log::info(std::string_view text) {
  if (level_ >= LogLevel::kNormal) line(messages_, text, "", nullptr);
}
void Log::detail(std::string_view text) {
  if (level_ >= LogLevel::kVerbose) line(messages_, text, "", "\x1b[2m");
}
void Log::result(std::string_view text) { line(results_, text, "", nullptr); }

void Log::line(FILE* stream, std::string_view text, std::string_view mark, const char* colour) {
  const std::lock_guard lock(mutex_);
  if (!status_.empty()) fmt::print(messages_, "\r\x1b[K");
  if (stream == messages_ && colour_ && colour != nullptr) {
    // A mark alone is coloured; a line without mark (a detail) as a whole.
    fmt::print(stream, "{}{}\x1b[0m{}\n", colour, mark.empty() ? text : mark, mark.empty() ? "" : text);
  } else {
    fmt::print(stream, "{}{}\n", mark, text);
  }
  std::fflush(stream);
  if (!status_.empty()) fmt::print(messages_, "{}", status_);
  std::fflush(messages_);
  write_to_file(fmt::format("{} {}{}\n", time_of_day(), mark, without_absolute_paths(without_escapes(text))));
}

void Log::write_to_file(std::string_view text) {
  if (!file_.is_open()) {
    if (early_lines_.size() < kMaxEarlyLines) early_lines_.emplace_back(text);
    return;
  }
  try {
    file_.append(text);
  } catch (const MachineError&) {
    // A full disk must not stop the message that says so from being shown; what must be durable fails elsewhere.
    file_ = AppendFile();
  }
}

void Log::set_status(std::string_view text) {
  const std::lock_guard lock(mutex_);
  if (!terminal_ || level_ == LogLevel::kQuiet) return;
  if (text.empty() && status_.empty()) return;
  status_ = cut_to_columns(text, columns() - 1);   // a full last column would wrap
  fmt::print(messages_, "\r{}\x1b[K", status_);
  std::fflush(messages_);
}

int Log::columns() const {
  winsize size{};
  if (::ioctl(::fileno(messages_), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

Log& log() {
  static Log the_log;
  return the_log;
}

std::string without_absolute_paths(std::string_view text) {
  static const std::string kHere = std::filesystem::current_path().string();
  const char* home = std::getenv("HOME");
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const bool begins = text[i] == '/' && (i == 0 || !is_path_character(text[i - 1])) && i + 1 < text.size() && is_path_character(text[i + 1]) && text[i + 1] != '/';
    if (!begins) {
      out += text[i++];
      continue;
    }
    size_t end = i;
    while (end < text.size() && is_path_character(text[end])) ++end;
    const std::string_view path = text.substr(i, end - i);
    const auto below = [&](std::string_view folder) { return folder.size() > 1 && path.starts_with(folder) && path.size() > folder.size() && path[folder.size()] == '/'; };
    if (below(kHere)) out += path.substr(kHere.size() + 1);
    else if (home != nullptr && below(home)) out += fmt::format("~{}", path.substr(std::string_view(home).size()));
    else out += fmt::format("…/{}", path.substr(path.rfind('/') + 1));
    i = end;
  }
  return out;
}

}  // namespace graft
