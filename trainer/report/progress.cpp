#include "trainer/report/progress.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include <fmt/format.h>

namespace graft {
namespace {

constexpr int kMaxColumns = 100;
constexpr int kMinBar = 8;

int width_of(const std::string& text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string counts(const ProgressView& view) {
  return view.total > 0 ? fmt::format("{}/{}", format_count(static_cast<double>(view.done)), format_count(static_cast<double>(view.total)))
                        : format_count(static_cast<double>(view.done));
}

// What stands beside the bar, the most important first.
std::vector<std::string> parts_of(const ProgressView& view) {
  std::vector<std::string> parts = {counts(view)};
  if (view.loss) parts.push_back(fmt::format("loss {:.3f}", *view.loss));
  if (view.rate && !view.unit.empty()) parts.push_back(fmt::format("{} {}", format_count(*view.rate), view.unit));
  if (view.seconds_left) parts.push_back(format_duration(*view.seconds_left) + " left");
  return parts;
}

// `columns` cells, filled in halves.
std::string draw(double share, int columns, bool colour) {
  const int halves = static_cast<int>(std::lround(std::clamp(share, 0.0, 1.0) * columns * 2));
  std::string filled, rest;
  for (int i = 0; i < halves / 2; ++i) filled += "━";
  if (halves % 2 == 1) filled += "╸";
  const int empty = columns - (halves + 1) / 2;
  for (int i = 0; i < empty; ++i) rest += colour ? "━" : " ";
  return colour ? fmt::format("\x1b[36m{}\x1b[90m{}\x1b[0m", filled, rest) : filled + rest;
}

}  // namespace

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  const auto total = static_cast<int64_t>(std::min(seconds, 9e8) + 0.5);
  if (total >= 3600) return fmt::format("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60);
  return fmt::format("{}:{:02}", total / 60, total % 60);
}

std::string format_count(double value) {
  if (!std::isfinite(value)) return "?";
  if (value != std::floor(value) && std::abs(value) < 10) return fmt::format("{:.2f}", value);
  std::string digits = fmt::format("{:.0f}", value);
  for (int at = static_cast<int>(digits.size()) - 3; at > (digits[0] == '-' ? 1 : 0); at -= 3) digits.insert(at, ",");
  return digits;
}

std::string render_line(const ProgressView& view) {
  std::string line = view.title;
  const auto parts = parts_of(view);
  for (size_t i = 0; i < parts.size(); ++i) line += (i == 0 ? " " : ", ") + parts[i];
  return line;
}

std::string render_bar(const ProgressView& view, int columns, bool colour) {
  columns = std::min(columns, kMaxColumns);
  auto parts = parts_of(view);
  const auto width = [&] {
    int sum = width_of(view.title) + 2;
    for (const std::string& part : parts) sum += 3 + width_of(part);
    return sum;
  };
  while (parts.size() > 1 && width() + kMinBar > columns) parts.pop_back();
  std::string line = view.title + "  ";
  const int room = columns - width();
  if (view.total > 0 && room >= kMinBar) {
    line += draw(static_cast<double>(view.done) / static_cast<double>(view.total), std::min(room, 40), colour);
  }
  for (const std::string& part : parts) line += "   " + part;
  return line;
}

Progress::Progress(Log& log, std::string title, int64_t total, Options options) : log_(log), options_(std::move(options)) {
  if (!options_.now) {
    options_.now = [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); };
  }
  view_.title = std::move(title);
  view_.unit = options_.unit;
  view_.done = options_.first;
  view_.total = total;
  started_ = options_.now();
  shown_ = started_ - options_.redraw_seconds;
  if (!log_.has_terminal()) shown_ = started_;
}

Progress::~Progress() {
  if (!finished_) log_.set_status("");
}

void Progress::update(int64_t done, std::optional<double> loss, std::optional<double> rate) {
  const double now = options_.now();
  view_.done = done;
  if (loss) view_.loss = loss;
  view_.seconds = now - started_;
  const double per_second = view_.seconds > 0 ? static_cast<double>(done - options_.first) / view_.seconds : 0;
  view_.rate = rate ? rate : per_second > 0 ? std::optional(per_second) : std::nullopt;
  view_.seconds_left.reset();
  if (view_.total > 0 && per_second > 0) view_.seconds_left = static_cast<double>(view_.total - done) / per_second;
  const bool terminal = log_.has_terminal();
  if (!log_.shows_progress() || now - shown_ < (terminal ? options_.redraw_seconds : options_.line_seconds)) return;
  shown_ = now;
  if (terminal) log_.set_status(render_bar(view_, log_.columns() - 1, log_.has_colour()));
  else log_.info(render_line(view_));
}

void Progress::finish() {
  finished_ = true;
  log_.set_status("");
  view_.seconds_left.reset();
  if (log_.shows_progress()) log_.info(fmt::format("{}, {}", render_line(view_), format_duration(options_.now() - started_)));
}

}  // namespace graft
