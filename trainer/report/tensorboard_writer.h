// TensorBoard event files, written by hand: a few protobuf fields in TFRecord frames. The file's name and content hold no host name.
//
//   record = length u64 | masked crc32c(length) u32 | data | masked crc32c(data) u32         (little endian; TFRecord, tensorflow/core/lib/io)
//   mask(c) = ((c >> 15) | (c << 17)) + 0xa282ead8
//   data = Event { 1: wall_time double, 2: step int64, 3: file_version string, 5: Summary { 1: Value { 1: tag, 2: simple_value float, ... } } }
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "trainer/report/append_file.h"

namespace graft {

class TensorboardWriter {
 public:
  // Creates `folder` (mode 0700) and its one event file, or appends to that of an earlier part of the run.
  explicit TensorboardWriter(const std::filesystem::path& folder);

  // wall_time: seconds since 1970; below 0: now.
  void add_scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values, double wall_time = -1);
  void add_text(int64_t step, const std::string& tag, const std::string& markdown, double wall_time = -1);

  // Removes the events after the checkpoint of `step`, and a last record that a kill cut short.
  void cut_back_to(int64_t step);

  const std::filesystem::path& path() const { return file_.path(); }

 private:
  void append_event(int64_t step, double wall_time, std::string_view payload);

  AppendFile file_;
};

// CRC-32C (Castagnoli), as TFRecord uses it.
uint32_t crc32c(std::string_view bytes);

}  // namespace graft
