// Event files: TensorBoard's own reader (EventAccumulator) is the reference.
#include "trainer/report/tensorboard_writer.h"

#include <sys/stat.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/files.h"

namespace graft {
namespace {

TEST(Tensorboard, crc32c_of_rfc_3720) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
}

TEST(Tensorboard, event_accumulator_reads_what_was_written) {
  const test::TemporaryFolder folder;
  {
    TensorboardWriter writer(folder / "tensorboard");
    writer.add_text(0, "recipe", "seed: 0 | **b**", 1.5e9);
    for (int step : {1, 2, 300}) writer.add_scalars(step, {{"train/loss", 1.0 / step}, {"train/learning_rate", 1e-3}}, 1.5e9 + step);
  }
  TensorboardWriter(folder / "tensorboard").add_scalars(301, {{"train/loss", 0.25}});   // a second part of the run appends
  const auto json = nlohmann::json::parse(test::run_python("tests/trainer/plain/read_events.py", {(folder / "tensorboard").string()}));
  EXPECT_EQ(json["scalars"]["train/loss"].dump(), "[[1,1.0],[2,0.5],[300,0.0033333334140479565],[301,0.25]]");
  EXPECT_EQ(json["scalars"]["train/learning_rate"].size(), 3);
  EXPECT_EQ(json["texts"]["recipe"], "seed: 0 | **b**");
  EXPECT_EQ(json["wall_time"], 1.5e9 + 1);
}

TEST(Tensorboard, cut_back_equals_never_written) {
  const test::TemporaryFolder folder;
  TensorboardWriter whole(folder / "whole"), cut(folder / "cut");
  test::write_file(cut.path(), test::read_file(whole.path()));   // the same wall time in the first event
  TensorboardWriter part(folder / "cut");
  for (int step = 1; step <= 9; ++step) {
    if (step <= 5) whole.add_scalars(step, {{"loss", step}}, 1e9);
    part.add_scalars(step, {{"loss", step}}, 1e9);
  }
  part.cut_back_to(5);
  EXPECT_EQ(test::read_file(part.path()), test::read_file(whole.path()));
  part.cut_back_to(5);
  EXPECT_EQ(test::read_file(part.path()), test::read_file(whole.path()));
}

TEST(Tensorboard, cut_back_removes_a_partial_record) {
  const test::TemporaryFolder folder;
  TensorboardWriter writer(folder / "t");
  writer.add_scalars(1, {{"loss", 1}}, 1e9);
  const std::string before = test::read_file(writer.path());
  for (size_t extra = 1; extra < 40; extra += 7) {
    writer.add_scalars(2, {{"loss", 2}}, 1e9);
    std::filesystem::resize_file(writer.path(), before.size() + extra);
    TensorboardWriter again(folder / "t");
    again.cut_back_to(7);
    ASSERT_EQ(test::read_file(writer.path()), before) << extra;
  }
}

TEST(Tensorboard, no_host_name_and_private) {
  const test::TemporaryFolder folder;
  TensorboardWriter writer(folder / "t");
  writer.add_scalars(1, {{"loss", 1}});
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  EXPECT_THAT(writer.path().filename().string() + test::read_file(writer.path()), testing::Not(testing::HasSubstr(host)));
  struct stat status {};
  stat(writer.path().c_str(), &status);
  EXPECT_EQ(status.st_mode & 0777, 0600);
  stat((folder / "t").c_str(), &status);
  EXPECT_EQ(status.st_mode & 0777, 0700);
}

}  // namespace
}  // namespace graft
