// run.device on machines with other GPUs than this one: the driver is a fake (fake_driver/), told by the environment what to show.
#include "trainer/runs/device_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "tests/support/error_of.h"

namespace graft {
namespace {

using ::testing::HasSubstr;

constexpr const char* kThree = "Old|7|5|16|16;Small|8|0|40|30;Large|9|0|80|20";

class ChoosesDevice : public ::testing::Test {
 protected:
  void TearDown() override {
    for (const char* name : {"FAKE_GPUS", "FAKE_DRIVER", "FAKE_INIT", "CUDA_VISIBLE_DEVICES"}) unsetenv(name);
  }
  static void set(const char* name, const char* value) { setenv(name, value, 1); }
  static CudaListing listing() { return list_cuda_devices({GRAFT_FAKE_DRIVER "/libcuda.so.1", GRAFT_FAKE_DRIVER "/libnvidia-ml.so.1"}); }
  static DeviceChoice choose(const std::string& wanted, const std::string& module_problem = "") { return choose_device(wanted, listing(), module_problem); }
  static std::string error_of(const std::string& wanted, const std::string& module_problem = "") {
    return test::error_of([&] { choose(wanted, module_problem); });
  }
};

TEST_F(ChoosesDevice, ListsWhatTheDriverShows) {
  set("FAKE_GPUS", kThree);
  const auto found = listing();
  ASSERT_EQ(found.devices.size(), 3u);
  EXPECT_EQ(found.driver_version, 13000);
  EXPECT_EQ(found.devices[1].name, "Small");
  EXPECT_EQ(found.devices[1].capability(), 80);
  EXPECT_EQ(found.devices[1].total_bytes, int64_t{40} << 30);
  EXPECT_EQ(found.devices[1].free_bytes, int64_t{30} << 30);
}

TEST_F(ChoosesDevice, AutoTakesTheMostFreeMemoryAmongThoseNewEnough) {
  set("FAKE_GPUS", kThree);
  const auto choice = choose("auto");
  EXPECT_EQ(choice.device(), c10::Device(c10::kCUDA, 1));
  EXPECT_EQ(choice.name(), "cuda: Small, sm_80");
  EXPECT_EQ(choice.note, "device cuda:1: Small, sm_80, 30.0 of 40.0 GiB free, the most of 2 GPUs");
}

TEST_F(ChoosesDevice, CountsVisibleDevicesAndFindsTheirFreeMemory) {
  set("FAKE_GPUS", kThree);
  set("CUDA_VISIBLE_DEVICES", "2");
  const auto choice = choose("cuda:0");
  EXPECT_EQ(choice.device(), c10::Device(c10::kCUDA, 0));
  EXPECT_EQ(choice.note, "device cuda:0: Large, sm_90, 20.0 of 80.0 GiB free");
  EXPECT_EQ(error_of("cuda:1"),
            "[graft.run] expected run.device to name a GPU that this program can use, got cuda:1: 1 GPU is visible, the first is cuda:0 — name another, or "
            "set run.device: cpu");
}

TEST_F(ChoosesDevice, SeveralProcessesTakeOneEach) {
  set("FAKE_GPUS", kThree);
  EXPECT_EQ(choose_device("auto", listing(), "", {0, 2}).note, "device cuda:1: Small, sm_80, 30.0 of 40.0 GiB free, one for each process");
  EXPECT_EQ(choose_device("auto", listing(), "", {1, 2}).device(), c10::Device(c10::kCUDA, 2));
  EXPECT_EQ(choose_device("auto", listing(), "", {1, 3}).note, "device cpu: 3 processes train on this machine, which has 2 GPUs for them");
  EXPECT_THROW(choose_device("cuda:1", listing(), "", {0, 2}), UserError);
}

TEST_F(ChoosesDevice, CpuAsksNobody) {
  const auto choice = choose_device("cpu", {}, "");
  EXPECT_EQ(choice.device(), c10::Device(c10::kCPU));
  EXPECT_EQ(choice.name(), "cpu");
  EXPECT_EQ(choice.note, "");
}

// One clear error for cuda:N, one line for auto.
struct Problem {
  const char *gpus, *driver, *init, *visible, *module;
  const char* words;
};

class RefusesDevice : public ChoosesDevice, public ::testing::WithParamInterface<Problem> {};

TEST_P(RefusesDevice, WithTheReason) {
  const auto& problem = GetParam();
  set("FAKE_GPUS", problem.gpus);
  set("FAKE_DRIVER", problem.driver);
  set("FAKE_INIT", problem.init);
  if (problem.visible) set("CUDA_VISIBLE_DEVICES", problem.visible);
  EXPECT_THAT(error_of("cuda:0", problem.module), HasSubstr(std::string("got cuda:0: ") + problem.words + " — name another, or set run.device: cpu"));
  const auto choice = choose("auto", problem.module);
  EXPECT_FALSE(choice.gpu.has_value());
  EXPECT_EQ(choice.note, std::string("device cpu: ") + problem.words);
}

INSTANTIATE_TEST_SUITE_P(
    Problems, RefusesDevice,
    ::testing::Values(Problem{"Old|7|5|16|16", "13000", "0", nullptr, "", "cuda:0 (Old) is of sm_75, older than sm_80"},
                      Problem{kThree, "12080", "0", nullptr, "", "the NVIDIA driver is for CUDA 12.8, older than 13.0"},
                      Problem{kThree, "13000", "0", "", "", "the NVIDIA driver shows no GPU (CUDA_VISIBLE_DEVICES may hide them)"},
                      Problem{kThree, "13000", "803", nullptr, "", "the NVIDIA driver does not start: error 803 (as the driver puts it)"},
                      Problem{kThree, "13000", "0", "1", "libgraft_cuda.so is not there", "libgraft_cuda.so is not there"}));

TEST_F(ChoosesDevice, SaysThatThereIsNoDriver) {
  const auto listing = list_cuda_devices({"/nowhere/libcuda.so.1", "/nowhere/libnvidia-ml.so.1"});
  EXPECT_EQ(choose_device("auto", listing, "").note, "device cpu: this machine has no NVIDIA driver (/nowhere/libcuda.so.1)");
  EXPECT_THROW(choose_device("cuda:0", listing, ""), UserError);
}

TEST_F(ChoosesDevice, WithoutNvmlTheFirstThatFits) {
  set("FAKE_GPUS", kThree);
  const auto listing = list_cuda_devices({GRAFT_FAKE_DRIVER "/libcuda.so.1", "/nowhere/libnvidia-ml.so.1"});
  EXPECT_EQ(choose_device("auto", listing, "").note, "device cuda:1: Small, sm_80, 40.0 GiB, the first of 2 GPUs");
}

}  // namespace
}  // namespace graft
