#include "trainer/parallel/launcher.h"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr double kGraceSeconds = 70;   // the others notice a lost rank within 60 s

volatile std::sig_atomic_t caught_signal = 0;
void on_signal(int signal) { caught_signal = signal; }

struct Child {
  pid_t pid = -1;
  int errors = -1;         // read end of its stderr; rank 0 keeps the terminal's
  std::string text;        // what it wrote there
  int status = 0;
  bool running = true;
};

int free_port() {
  const int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  if (probe < 0 || bind(probe, reinterpret_cast<sockaddr*>(&address), length) != 0 || getsockname(probe, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    throw MachineError("parallel", fmt::format("could not find a free port on 127.0.0.1: {}", std::strerror(errno)));
  }
  close(probe);
  return ntohs(address.sin_port);
}

Child start(int rank, int processes, int port, const std::vector<std::string>& arguments) {
  int pipe_ends[2] = {-1, -1};
  if (rank > 0 && pipe2(pipe_ends, O_CLOEXEC) != 0) throw MachineError("parallel", "could not make a pipe to a process");
  std::vector<std::string> words = {"graft", "train"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  Child child;
  child.pid = fork();
  if (child.pid < 0) throw MachineError("parallel", fmt::format("could not start process {} of {}: {}", rank + 1, processes, std::strerror(errno)));
  if (child.pid == 0) {
    setpgid(0, 0);   // Ctrl-C reaches the launcher alone, which passes it on once
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(3);
    const auto set = [](const char* name, const std::string& value) { setenv(name, value.c_str(), 1); };
    set("GRAFT_LAUNCH", "1");
    set("RANK", std::to_string(rank));
    set("LOCAL_RANK", std::to_string(rank));
    set("WORLD_SIZE", std::to_string(processes));
    set("LOCAL_WORLD_SIZE", std::to_string(processes));
    set("MASTER_ADDR", "127.0.0.1");
    set("MASTER_PORT", std::to_string(port));
    unsetenv("TORCHELASTIC_USE_AGENT_STORE");
    if (rank > 0) {
      dup2(pipe_ends[1], STDERR_FILENO);
      const int nothing = open("/dev/null", O_WRONLY);
      dup2(nothing, STDOUT_FILENO);
    }
    execv("/proc/self/exe", argv.data());
    _exit(3);
  }
  if (rank > 0) {
    close(pipe_ends[1]);
    child.errors = pipe_ends[0];
  }
  return child;
}

void read_errors(std::vector<Child>& children, int timeout_ms) {
  std::vector<pollfd> polled;
  for (const auto& child : children) polled.push_back({child.errors, POLLIN, 0});   // negative descriptors are passed over
  poll(polled.data(), polled.size(), timeout_ms);
  for (size_t i = 0; i < children.size(); ++i) {
    if ((polled[i].revents & (POLLIN | POLLHUP)) == 0) continue;
    char buffer[4096];
    const auto count = read(children[i].errors, buffer, sizeof buffer);
    if (count > 0) children[i].text.append(buffer, static_cast<size_t>(count));
    if (count == 0) {
      close(children[i].errors);
      children[i].errors = -1;
    }
  }
}

int exit_code_of(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

}  // namespace

int launch_processes(int processes, const std::vector<std::string>& arguments) {
  using Clock = std::chrono::steady_clock;
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::vector<Child> children;
  const int port = free_port();
  for (int rank = 0; rank < processes; ++rank) children.push_back(start(rank, processes, port, arguments));

  bool failed = false;
  Clock::time_point failed_at;
  int running = processes, force = SIGTERM;
  while (running > 0) {
    read_errors(children, 100);
    if (const int signal = caught_signal; signal != 0) {
      caught_signal = 0;
      for (const auto& child : children) {
        if (child.running) kill(child.pid, signal);
      }
    }
    for (auto& child : children) {
      if (!child.running || waitpid(child.pid, &child.status, WNOHANG) != child.pid) continue;
      child.running = false;
      --running;
      if (child.status != 0 && !failed) {
        failed = true;
        failed_at = Clock::now();
      }
    }
    if (failed && std::chrono::duration<double>(Clock::now() - failed_at).count() > kGraceSeconds) {
      for (const auto& child : children) {
        if (child.running) kill(child.pid, force);
      }
      force = SIGKILL;
      failed_at = Clock::now();
    }
  }
  read_errors(children, 0);
  const auto& first = children[0];
  const bool first_reported = WIFEXITED(first.status) && WEXITSTATUS(first.status) != 0;
  std::set<std::string> shown;
  int code = exit_code_of(first.status);
  if (WIFSIGNALED(first.status)) std::fprintf(stderr, "error: [graft.parallel] rank 0 was ended by signal %d (%s)\n", WTERMSIG(first.status), strsignal(WTERMSIG(first.status)));
  for (size_t rank = 1; rank < children.size(); ++rank) {
    if (code == 0) code = exit_code_of(children[rank].status);
    if (first_reported || children[rank].text.empty() || !shown.insert(children[rank].text.substr(0, children[rank].text.rfind("(this is rank"))).second) continue;
    std::fprintf(stderr, "rank %zu: %s", rank, children[rank].text.c_str());
  }
  return code;
}

}  // namespace graft
