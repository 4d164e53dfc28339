// Progress of a long job: a bar on a terminal, a plain line now and then elsewhere.
//
//   train  ━━━━━━━━━━━━╸                    142/213   loss 0.412   1,203 tokens/s   1:52 left
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "trainer/report/log_file.h"

namespace graft {

struct ProgressView {
  std::string title, unit;              // "train", "tokens/s"
  int64_t done = 0, total = 0;          // total 0: unknown
  std::optional<double> loss, rate;     // rate in `unit`
  std::optional<double> seconds_left;
  double seconds = 0;                   // since the beginning
};

// One line, at most `columns` wide: what fits is shown, the bar takes the room that is left. Bar characters and colours only where asked for.
std::string render_bar(const ProgressView& view, int columns, bool colour);
// "train 142/213, loss 0.412, 1,203 tokens/s, 1:52 left": for logs.
std::string render_line(const ProgressView& view);
std::string format_duration(double seconds);     // 0:07, 12:05, 3:04:05
std::string format_count(double value);          // 1,203; below 10: two digits after the point

class Progress {
 public:
  struct Options {
    std::string unit;                       // of `rate`; empty: no rate
    int64_t first = 0;                      // done before this process (a resumed run): not counted in the speed
    double redraw_seconds = 0.1;            // on a terminal
    double line_seconds = 15;               // elsewhere
    std::function<double()> now;            // seconds; default: the steady clock
  };
  Progress(Log& log, std::string title, int64_t total, Options options);
  ~Progress();   // removes the bar
  Progress(const Progress&) = delete;

  // done: of total. rate: in options.unit; when not given, it is done per second.
  void update(int64_t done, std::optional<double> loss = std::nullopt, std::optional<double> rate = std::nullopt);
  // Removes the bar and logs one line with the time it took.
  void finish();

 private:
  Log& log_;
  ProgressView view_;
  Options options_;
  double started_ = 0, shown_ = 0;
  bool finished_ = false;
};

}  // namespace graft
