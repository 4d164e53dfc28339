// metrics.jsonl: one JSON object a line, numbers with as many digits as read back to the same bits.
//
// A step's line: {"step", "loss", "learning_rate", "gradient_norm", "tokens", "supervised_tokens", "tokens_per_s", "seconds"}; where the
// validation loss was computed also "validation_loss". tokens and supervised_tokens are the step's own; seconds is how long it
// took. The file is part of what a resumed run reproduces: all but tokens_per_s and seconds.
#pragma once
#include <cstdint>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "trainer/report/append_file.h"

namespace graft {

class MetricsLog {
 public:
  explicit MetricsLog(const std::filesystem::path& path) : file_(path) {}

  // `line` is an object with an integer "step"; it is in the file when this returns.
  void append(const nlohmann::ordered_json& line);

  // Removes what follows the checkpoint of `step`: lines of later steps, and a last line that a kill cut short.
  void cut_back_to(int64_t step);

 private:
  AppendFile file_;
};

// The lines of a metrics.jsonl, in order; a last line without its end is left out. Missing file: none. Other malformed lines: UserError.
std::vector<nlohmann::ordered_json> read_metrics(const std::filesystem::path& path);

}  // namespace graft
