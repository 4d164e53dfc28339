// Who a process is, and who computes what.
#include <map>

#include <gmock/gmock.h>

#include "kernels/common/error.h"
#include "trainer/parallel/dealing.h"
#include "trainer/parallel/launch_environment.h"

namespace graft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

LaunchEnvironment launch_of(const std::map<std::string, std::string>& variables) {
  return launch_environment([&](const char* name) -> const char* {
    const auto it = variables.find(name);
    return it == variables.end() ? nullptr : it->second.c_str();
  });
}

TEST(LaunchEnvironment, NothingSaidIsOneProcess) {
  EXPECT_TRUE(launch_of({}).alone());
  EXPECT_TRUE(launch_of({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).alone()) << "one process needs no meeting point";
  EXPECT_TRUE(launch_of({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}}).alone()) << "a batch script without srun";
}

TEST(LaunchEnvironment, Torchrun) {
  const auto launch = launch_of({{"RANK", "3"}, {"WORLD_SIZE", "8"}, {"LOCAL_RANK", "1"}, {"LOCAL_WORLD_SIZE", "2"}, {"MASTER_ADDR", "node1"}, {"MASTER_PORT", "29500"},
                                 {"TORCHELASTIC_USE_AGENT_STORE", "True"}, {"TORCHELASTIC_RESTART_COUNT", "2"}});
  EXPECT_EQ(launch.rank, 3);
  EXPECT_EQ(launch.size, 8);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.local_size, 2);
  EXPECT_EQ(launch.address, "node1");
  EXPECT_EQ(launch.port, 29500);
  EXPECT_TRUE(launch.agent_store);
  EXPECT_EQ(launch.prefix, "/worker/attempt_2");
}

TEST(LaunchEnvironment, SlurmMeetsAtTheFirstHost) {
  const auto launch = launch_of({{"SLURM_PROCID", "5"}, {"SLURM_STEP_NUM_TASKS", "8"}, {"SLURM_LOCALID", "1"}, {"SLURM_STEP_TASKS_PER_NODE", "4(x2)"},
                                 {"SLURM_STEP_NODELIST", "gpu[07-08]"}, {"SLURM_JOB_ID", "123456"}});
  EXPECT_EQ(launch.launcher, "Slurm");
  EXPECT_EQ(launch.local_size, 4);
  EXPECT_EQ(launch.address, "gpu07");
  EXPECT_EQ(launch.port, 29500 + 3456);
  EXPECT_EQ(first_slurm_host("a,b"), "a");
  EXPECT_EQ(first_slurm_host("node[003,7-9],other"), "node003");
  EXPECT_EQ(first_slurm_host("rack[1-2].site,x"), "rack1.site");
}

TEST(LaunchEnvironment, OpenMpiOnOneMachineNeedsNoAddress) {
  const auto launch = launch_of({{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "1"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
  EXPECT_EQ(launch.address, "127.0.0.1");
  EXPECT_THROW(launch_of({{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "1"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}}), UserError);
}

TEST(LaunchEnvironment, ContradictionsAreErrors) {
  try {
    launch_of({{"RANK", "4"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "x"}, {"MASTER_PORT", "1"}});
    FAIL();
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("from 0 to 3"));
  }
  EXPECT_THROW(launch_of({{"RANK", "one"}, {"WORLD_SIZE", "4"}}), UserError);
  EXPECT_THROW(launch_of({{"RANK", "1"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "x"}}), UserError);
}

TEST(Dealing, TheLongestFirstToTheEmptiest) {
  EXPECT_THAT(deal({10, 90, 50, 40}, 2), ElementsAre(0, 0, 1, 1)) << "at a tie the lower rank";
  EXPECT_THAT(deal({5, 5, 5}, 1), ElementsAre(0, 0, 0));
  EXPECT_THAT(deal({}, 3), ElementsAre());
}

TEST(Dealing, EveryRankHasAsManyRounds) {
  const std::vector<int> ranks = {1, 0, 1, 1};
  EXPECT_THAT(rounds_of(ranks, 1, 3), ElementsAre(0, 2, 3));
  EXPECT_THAT(rounds_of(ranks, 0, 3), ElementsAre(1, -1, -1));
  EXPECT_THAT(rounds_of(ranks, 2, 3), ElementsAre(-1, -1, -1));
  EXPECT_THAT(rounds_of({}, 0, 2), ElementsAre());
}

}  // namespace
}  // namespace graft
