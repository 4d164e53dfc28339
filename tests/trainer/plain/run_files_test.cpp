// metrics.jsonl, log.txt, progress, manifest.json.
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "tests/support/files.h"
#include "trainer/report/log_file.h"
#include "trainer/report/manifest.h"
#include "trainer/report/metrics_log.h"
#include "trainer/report/progress.h"

namespace graft {
namespace {

using testing::HasSubstr;
using testing::Not;
using Json = nlohmann::ordered_json;

TEST(MetricsLog, numbers_read_back_to_the_same_bits) {
  const test::TemporaryFolder folder;
  MetricsLog metrics(folder / "metrics.jsonl");
  const double values[] = {0.1 + 0.2, 1.0 / 3, 5e-324, 1.7976931348623157e308, 1e-3, 123456789.123456789};
  for (int i = 0; i < 6; ++i) metrics.append({{"step", i}, {"loss", values[i]}});
  const auto lines = read_metrics(folder / "metrics.jsonl");
  ASSERT_EQ(lines.size(), 6);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(lines[i]["loss"].get<double>(), values[i]);
}

TEST(MetricsLog, cut_back_keeps_complete_lines_up_to_the_step) {
  const test::TemporaryFolder folder;
  MetricsLog metrics(folder / "m");
  for (int step = 1; step <= 4; ++step) metrics.append({{"step", step}});
  const std::string three = "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n";
  metrics.cut_back_to(3);
  EXPECT_EQ(test::read_file(folder / "m"), three);
  test::write_file(folder / "m", three + "{\"step\":4,\"lo");   // killed while writing
  EXPECT_EQ(read_metrics(folder / "m").size(), 3);
  MetricsLog resumed(folder / "m");
  resumed.cut_back_to(9);
  resumed.append({{"step", 4}});
  EXPECT_EQ(test::read_file(folder / "m"), three + "{\"step\":4}\n");
  resumed.cut_back_to(0);
  EXPECT_EQ(test::read_file(folder / "m"), "");
}

// A log on two temporary files in place of stderr and stdout.
class LogTest : public testing::Test {
 protected:
  FILE* messages_ = std::tmpfile();
  FILE* results_ = std::tmpfile();
  Log log_{messages_, results_};
  test::TemporaryFolder folder_;

  static std::string content(FILE* file) {
    std::string text(static_cast<size_t>(std::ftell(file)), '\0');
    std::rewind(file);
    text.resize(std::fread(text.data(), 1, text.size(), file));
    return text;
  }
  ~LogTest() override { std::fclose(messages_), std::fclose(results_); }
};

TEST_F(LogTest, log_txt_holds_every_line_shown) {
  log_.info("before the run folder");
  log_.open(folder_ / "log.txt");
  log_.warning("careful");
  log_.detail("not shown");
  log_.set_level(LogLevel::kVerbose);
  log_.detail("shown");
  log_.set_level(LogLevel::kQuiet);
  log_.info("silent");
  log_.error("broken");
  log_.result("{\"done\":true}");
  EXPECT_EQ(content(messages_), "before the run folder\nwarning: careful\nshown\nerror: broken\n");
  EXPECT_EQ(content(results_), "{\"done\":true}\n");
  std::string file;
  for (std::istringstream lines(test::read_file(folder_ / "log.txt")); std::getline(lines, file);) {
    EXPECT_THAT(file.substr(0, 21), testing::MatchesRegex("....-..-..T..:..:..Z "));
  }
  const std::string whole = test::read_file(folder_ / "log.txt");
  for (const char* line : {"Z before the run folder\n", "Z warning: careful\n", "Z shown\n", "Z error: broken\n", "Z {\"done\":true}\n"}) {
    EXPECT_THAT(whole, HasSubstr(line));
  }
  EXPECT_THAT(whole, Not(HasSubstr("not shown")));
  EXPECT_THAT(whole, Not(HasSubstr("silent")));
}

TEST_F(LogTest, log_txt_holds_no_absolute_path_and_no_colour) {
  log_.open(folder_ / "log.txt");
  log_.info("reads /srv/models/base.gguf and '" + std::filesystem::current_path().string() + "/runs/a' at 3 tokens/s, 1/2 done");
  log_.info("\x1b[32mgreen\x1b[0m");
  const std::string whole = test::read_file(folder_ / "log.txt");
  EXPECT_THAT(whole, HasSubstr("reads …/base.gguf and 'runs/a' at 3 tokens/s, 1/2 done\n"));
  EXPECT_THAT(whole, HasSubstr("Z green\n"));
  EXPECT_THAT(content(messages_), HasSubstr("/srv/models/base.gguf"));   // on the terminal the whole path
}

TEST_F(LogTest, progress_elsewhere_is_plain_lines_now_and_then) {
  double now = 100;
  Progress progress(log_, "train", 200, {.unit = "tokens/s", .first = 50, .line_seconds = 10, .now = [&] { return now; }});
  for (int step = 51; step <= 100; ++step) {
    now += 1;
    progress.update(step, 0.5, 1234.4);
  }
  progress.finish();
  EXPECT_EQ(content(messages_),
            "train 60/200, loss 0.500, 1,234 tokens/s, 2:20 left\n"
            "train 70/200, loss 0.500, 1,234 tokens/s, 2:10 left\n"
            "train 80/200, loss 0.500, 1,234 tokens/s, 2:00 left\n"
            "train 90/200, loss 0.500, 1,234 tokens/s, 1:50 left\n"
            "train 100/200, loss 0.500, 1,234 tokens/s, 1:40 left\n"
            "train 100/200, loss 0.500, 1,234 tokens/s, 0:50\n");
}

int columns_of(const std::string& text) {
  int columns = 0;
  for (const char c : text) columns += (c & 0xC0) != 0x80;
  return columns;
}

TEST(Progress, bar_fits_any_width) {
  const ProgressView view{.title = "train", .unit = "tokens/s", .done = 142, .total = 213, .loss = 0.4119, .rate = 1203, .seconds_left = 112};
  EXPECT_EQ(render_bar(view, 100, false),
            "train  ━━━━━━━━━━━━━━━━━━━━━━━━━━╸                142/213   loss 0.412   1,203 tokens/s   1:52 left");
  for (int width = 10; width < 140; ++width) EXPECT_LE(columns_of(render_bar(view, width, false)), std::max(std::min(width, 100), 17)) << width;
  EXPECT_EQ(render_bar(view, 20, false), "train     142/213");
  EXPECT_THAT(render_bar(view, 100, false), Not(HasSubstr("\x1b")));
  EXPECT_THAT(render_bar(view, 100, true), HasSubstr("\x1b[36m"));
}

TEST(Progress, numbers) {
  EXPECT_EQ(format_duration(7.4), "0:07");
  EXPECT_EQ(format_duration(11045), "3:04:05");
  EXPECT_EQ(format_duration(std::nan("")), "?");
  EXPECT_EQ(format_count(1234567), "1,234,567");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(3.14159), "3.14");
}

Manifest sample() {
  Manifest manifest;
  manifest.program_version = "0.1.0";
  manifest.base_name = "model.gguf";
  manifest.base = {{"model.gguf", std::string(64, 'a'), 12}};
  manifest.train = {{"train.jsonl", std::string(64, 'b'), 34}};
  manifest.versions = {{"libtorch", "2.11.0"}};
  manifest.threads = 2;
  manifest.machine = machine_info();
  manifest.extra["chain"] = "c0ffee";
  return manifest;
}

TEST(Manifest, writes_and_reads) {
  const test::TemporaryFolder folder;
  write_manifest(folder / "manifest.json", sample());
  const Manifest read = read_manifest(folder / "manifest.json");
  EXPECT_EQ(to_json(read).dump(), to_json(sample()).dump());
  EXPECT_EQ(to_json(read)["format"], 1);
  EXPECT_EQ(read.extra["chain"], "c0ffee");
  EXPECT_TRUE(manifest_differences(read, sample()).empty());
  test::write_file(folder / "other.json", "{\"format\":2}");
  EXPECT_THROW(read_manifest(folder / "other.json"), UserError);
  test::write_file(folder / "broken.json", "{\"format\":1}");
  EXPECT_THROW(read_manifest(folder / "broken.json"), UserError);
  EXPECT_THROW(read_manifest(folder / "missing.json"), UserError);
}

TEST(Manifest, differences_name_what_changed) {
  Manifest now = sample();
  now.threads = 4;
  now.base[0].sha256 = std::string(64, 'd');
  EXPECT_EQ(manifest_differences(sample(), now),
            (std::vector<std::string>{"base: model.gguf@aaaaaaaaaaaa -> model.gguf@dddddddddddd", "run.threads: 2 -> 4"}));
}

TEST(MachineInfo, names_the_machine_but_not_the_host) {
  const MachineInfo machine = machine_info();
  EXPECT_GE(machine.cores, 1);
  EXPECT_GT(machine.memory_bytes, 1 << 20);
  EXPECT_FALSE(machine.cpu.empty());
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  EXPECT_THAT(to_json(machine).dump(), Not(HasSubstr(host)));
  EXPECT_EQ(program_build_id().size(), 64);
}

TEST(UtcNow, honours_source_date_epoch) {
  setenv("SOURCE_DATE_EPOCH", "1700000000", 1);
  EXPECT_EQ(utc_now(), "2023-11-14T22:13:20Z");
  unsetenv("SOURCE_DATE_EPOCH");
}

}  // namespace
}  // namespace graft
