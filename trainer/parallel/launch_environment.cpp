#include "trainer/parallel/launch_environment.h"

#include <charconv>
#include <optional>

#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr int kDefaultPort = 29500;

class Variables {
 public:
  Variables(const std::function<const char*(const char*)>& variable, std::string launcher) : variable_(variable), launcher_(std::move(launcher)) {}

  std::optional<std::string> text(const char* name) const {
    const char* value = variable_(name);
    return value && *value ? std::optional<std::string>(value) : std::nullopt;
  }
  std::string need_text(const char* name, const char* what) const {
    const auto value = text(name);
    if (!value) fail("parallel", "expected {} to be set under {} ({}), got nothing — export it for every process", name, launcher_, what);
    return *value;
  }
  int number_or(const char* name, int otherwise, int largest = 1 << 20) const { return text(name) ? need_number(name, "", largest) : otherwise; }
  int need_number(const char* name, const char* what, int largest = 1 << 20) const {
    const auto value = need_text(name, what);
    int number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc() || end != value.data() + value.size() || number < 0 || number > largest) {
      fail("parallel", "expected {} to be a number from 0 to {} ({}), got \"{}\"", name, largest, launcher_, value);
    }
    return number;
  }

 private:
  const std::function<const char*(const char*)>& variable_;
  std::string launcher_;
};

void check(const LaunchEnvironment& launch) {
  if (launch.size < 1 || launch.rank >= launch.size) {
    fail("parallel", "expected a rank from 0 to {} under {}, got {}", launch.size - 1, launch.launcher, launch.rank);
  }
  if (launch.local_size < 1 || launch.local_rank >= launch.local_size) {
    fail("parallel", "expected a local rank from 0 to {} under {}, got {}", launch.local_size - 1, launch.launcher, launch.local_rank);
  }
}

}  // namespace

std::string first_slurm_host(const std::string& list) {
  const auto bracket = list.find('['), comma = list.find(',');
  if (bracket == std::string::npos || comma < bracket) return list.substr(0, comma);
  const auto end = list.find_first_of(",-]", bracket + 1);
  const auto close = list.find(']', bracket);
  if (end == std::string::npos || close == std::string::npos) fail("parallel", "expected a list of hosts like node[01-04], got \"{}\"", list);
  const auto after = list.find(',', close);
  return list.substr(0, bracket) + list.substr(bracket + 1, end - bracket - 1) + list.substr(close + 1, after == std::string::npos ? after : after - close - 1);
}

LaunchEnvironment launch_environment(const std::function<const char*(const char*)>& variable) {
  LaunchEnvironment launch;
  const auto is_set = [&](const char* name) { return variable(name) && *variable(name); };
  if (is_set("RANK") && is_set("WORLD_SIZE")) {
    launch.launcher = is_set("GRAFT_LAUNCH") ? "graft launch" : "torchrun";
    const Variables from(variable, launch.launcher);
    launch.rank = from.need_number("RANK", "this process's number");
    launch.size = from.need_number("WORLD_SIZE", "the number of processes");
    launch.local_rank = from.number_or("LOCAL_RANK", 0);
    launch.local_size = from.number_or("LOCAL_WORLD_SIZE", launch.local_rank + 1);
    check(launch);
    if (launch.alone()) return {};
    launch.address = from.need_text("MASTER_ADDR", "the host of rank 0");
    launch.port = from.need_number("MASTER_PORT", "a free port there", 65535);
    launch.agent_store = from.text("TORCHELASTIC_USE_AGENT_STORE").value_or("") == "True";
    if (launch.agent_store) launch.prefix = "/worker/attempt_" + from.text("TORCHELASTIC_RESTART_COUNT").value_or("0");
  } else if (is_set("OMPI_COMM_WORLD_SIZE")) {
    launch.launcher = "Open MPI";
    const Variables from(variable, launch.launcher);
    launch.rank = from.need_number("OMPI_COMM_WORLD_RANK", "this process's number");
    launch.size = from.need_number("OMPI_COMM_WORLD_SIZE", "the number of processes");
    launch.local_rank = from.number_or("OMPI_COMM_WORLD_LOCAL_RANK", 0);
    launch.local_size = from.number_or("OMPI_COMM_WORLD_LOCAL_SIZE", launch.local_rank + 1);
    check(launch);
    if (launch.alone()) return {};
    const bool one_machine = launch.local_size == launch.size;
    launch.address = one_machine ? from.text("MASTER_ADDR").value_or("127.0.0.1") : from.need_text("MASTER_ADDR", "the host of rank 0: mpirun -x MASTER_ADDR=...");
    launch.port = from.number_or("MASTER_PORT", kDefaultPort, 65535);
  } else if (is_set("SLURM_STEP_NUM_TASKS")) {   // only srun sets it: a batch script alone is one process, whatever SLURM_NTASKS says
    launch.launcher = "Slurm";
    const Variables from(variable, launch.launcher);
    launch.rank = from.need_number("SLURM_PROCID", "this process's number");
    launch.size = from.need_number("SLURM_STEP_NUM_TASKS", "the number of processes");
    launch.local_rank = from.number_or("SLURM_LOCALID", 0);
    const auto per_node = from.text("SLURM_STEP_TASKS_PER_NODE").value_or("");   // "4(x2)", "3,2"
    const bool even = per_node.find(',') == std::string::npos;
    launch.local_size = launch.local_rank + 1;
    if (int number = 0; even && std::from_chars(per_node.data(), per_node.data() + per_node.size(), number).ec == std::errc()) launch.local_size = number;
    check(launch);
    if (launch.alone()) return {};
    const auto host = from.text("MASTER_ADDR");
    launch.address = host ? *host : first_slurm_host(from.need_text("SLURM_STEP_NODELIST", "the hosts of this step"));
    launch.port = from.number_or("MASTER_PORT", kDefaultPort + from.number_or("SLURM_JOB_ID", 0, 1 << 30) % 10000, 65535);
  }
  return launch;
}

}  // namespace graft
