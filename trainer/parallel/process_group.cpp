#include "trainer/parallel/process_group.h"

#include <cstring>
#include <thread>

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <c10/util/Flags.h>
#include <fmt/ranges.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "kernels/common/error.h"
#include "trainer/parallel/gloo_backend.h"
#include "trainer/parallel/heartbeat.h"
#include "trainer/report/log_file.h"

C10_DECLARE_int(caffe2_log_level);

namespace graft {
namespace {

using namespace std::chrono_literals;
using StorePointer = c10::intrusive_ptr<c10d::Store>;

constexpr auto kJoinLimit = std::chrono::minutes(5);
constexpr auto kForever = std::chrono::hours(24 * 7);
constexpr auto kLinger = 4s;   // the store's host stays that long, so that the others can read why the run ends

std::vector<uint8_t> bytes_of(const std::string& text) { return {text.begin(), text.end()}; }
std::string text_of(const std::vector<uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }

struct Address {
  sockaddr_storage storage = {};
  socklen_t length = 0;
  int family = AF_INET;
  bool loopback() const {
    if (family == AF_INET) return (ntohl(reinterpret_cast<const sockaddr_in&>(storage).sin_addr.s_addr) >> 24) == 127;
    return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(storage).sin6_addr);
  }
};

Address resolve(const std::string& host, int port) {
  addrinfo hints = {}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found); error != 0) {
    fail("parallel", "expected MASTER_ADDR to be the host of rank 0, got {}: {}", host, gai_strerror(error));
  }
  Address address;
  std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  address.length = found->ai_addrlen;
  address.family = found->ai_family;
  freeaddrinfo(found);
  return address;
}

// This machine's own address on the way to `target`: nothing is sent. Empty where there is no way.
std::string own_address_towards(const Address& target) {
  const int probe = socket(target.family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  Address own;
  own.length = sizeof own.storage;
  char text[NI_MAXHOST] = "";
  if (probe >= 0 && connect(probe, reinterpret_cast<const sockaddr*>(&target.storage), target.length) == 0 &&
      getsockname(probe, reinterpret_cast<sockaddr*>(&own.storage), &own.length) == 0) {
    getnameinfo(reinterpret_cast<const sockaddr*>(&own.storage), own.length, text, sizeof text, nullptr, 0, NI_NUMERICHOST);
  }
  if (probe >= 0) close(probe);
  return text;
}

// The store's socket listens on the address at which the ranks meet and on no other; on all of them only where that address is not this
// machine's own (a service's) or only this machine's (a launcher's "localhost") though ranks run elsewhere too.
int listening_socket(const Address& meeting, int port, bool one_machine) {
  const auto attempt = [&](const Address& address) {
    const int listener = socket(address.family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (listener >= 0 && bind(listener, reinterpret_cast<const sockaddr*>(&address.storage), address.length) == 0 && listen(listener, 1024) == 0) return listener;
    const int error = errno;
    if (listener >= 0) close(listener);
    errno = error;
    return -1;
  };
  int listener = -1;
  if (!meeting.loopback() || one_machine) listener = attempt(meeting);
  if (listener < 0 && (errno == EADDRNOTAVAIL || (meeting.loopback() && !one_machine))) {
    Address any;
    auto& address = reinterpret_cast<sockaddr_in&>(any.storage);
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    any.length = sizeof address;
    listener = attempt(any);
  }
  if (listener < 0) fail("parallel", "expected port {} to be free for the processes to meet at, got: {} — set MASTER_PORT to another one", port, std::strerror(errno));
  return listener;
}

StorePointer connect_store(const LaunchEnvironment& launch, int listener) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(launch.port);
  options.isServer = listener >= 0;
  options.waitWorkers = false;
  options.timeout = kJoinLimit;
  if (listener >= 0) options.masterListenFd = listener;
  try {
    StorePointer store = c10::make_intrusive<c10d::TCPStore>(launch.address, options);
    if (!launch.prefix.empty()) store = c10::make_intrusive<c10d::PrefixStore>(launch.prefix + "/graft", store);
    return store;
  } catch (const std::exception&) {
    throw MachineError("parallel", fmt::format("rank {} of {} expected {} at {}:{}, got no answer for {} minutes — did it start, and is the port open between the machines?",
                                               launch.rank, launch.size, launch.agent_store ? "torchrun's agent" : "rank 0", launch.address, launch.port,
                                               kJoinLimit.count()));
  }
}

HeartbeatStore heartbeat_store(StorePointer store) {
  return {[store](const std::string& key, const std::string& value) { store->set(key, bytes_of(value)); },
          [store](const std::vector<std::string>& keys) {
            std::vector<std::string> values;
            for (const auto& value : store->multiGet(keys)) values.push_back(text_of(value));
            return values;
          },
          [store](const std::string& key) { return store->check({key}); },
          [store](const std::string& key, const std::string& value) { return text_of(store->compareSet(key, {}, bytes_of(value))); }};
}

void wait_for_all(const StorePointer& store, const LaunchEnvironment& launch) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<int> missing;
  do {
    missing.clear();
    for (int rank = 0; rank < launch.size; ++rank) {
      if (!store->check({fmt::format("alive/{}", rank)})) missing.push_back(rank);
    }
    if (missing.empty()) return;
    std::this_thread::sleep_for(50ms);
  } while (std::chrono::steady_clock::now() - start < kJoinLimit);
  throw MachineError("parallel", fmt::format("expected {} ranks to meet at {}:{}, got no rank {} within {} minutes — did every process start?", launch.size,
                                             launch.address, launch.port, fmt::join(missing, ", "), kJoinLimit.count()));
}

using NcclFactory = c10d::Backend* (*)(c10d::Store*, int rank, int size, int device, int64_t timeout_ms);

}  // namespace

struct ProcessGroup::Connection {
  StorePointer store;              // of the main thread; the heartbeat has its own connection
  c10::intrusive_ptr<c10d::Backend> backend;
  std::unique_ptr<Heartbeat> heartbeat;
  at::Device device{at::kCPU};
  std::string host;
  int64_t step = 0, exchanges = 0;
  bool keeps_store = false;

  [[noreturn]] void explain(const std::exception& error) {   // without LibTorch's stack trace
    const std::string text = error.what();
    heartbeat->explain(text.substr(0, text.find('\n')));
  }
  void finish(c10d::Work& work) {
    try {
      // Polled: Gloo reports a broken connection here, and a silent rank is the heartbeat's business.
      for (auto pause = 20us; !work.isCompleted(); pause = std::min<std::chrono::microseconds>(pause * 2, 1000us)) std::this_thread::sleep_for(pause);
      work.wait();
    } catch (const std::exception& error) {
      explain(error);
    }
  }
  // In place; a tensor that lies elsewhere travels over the device of the collectives.
  template <typename Collective>
  void run(at::Tensor& tensor, const std::string& operation, const Collective& collective) {
    std::vector<at::Tensor> tensors{tensor.to(device)};
    finish(*start(operation, [&] { return collective(*backend, tensors); }));
    if (tensor.device() != device) tensor.copy_(tensors[0]);
  }
  template <typename Start>
  c10::intrusive_ptr<c10d::Work> start(const std::string& operation, const Start& function) {
    heartbeat->set_place(step, operation);
    try {
      return function();
    } catch (const std::exception& error) {
      explain(error);
    }
  }
};

namespace {

std::atomic_flag ending = ATOMIC_FLAG_INIT;

// Once, by whichever thread comes first.
[[noreturn]] void end_process(const std::string& text, int exit_code, bool keeps_store) {
  if (ending.test_and_set()) {
    for (;;) pause();
  }
  log().set_status("");
  log().error(text);
  std::fflush(stdout);
  if (keeps_store) std::this_thread::sleep_for(kLinger);
  _exit(exit_code);
}

}  // namespace

ProcessGroup::ProcessGroup() = default;

ProcessGroup::ProcessGroup(const LaunchEnvironment& launch) : launch_(launch), connection_(std::make_unique<Connection>()) {
  if (!std::getenv("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = 3;   // a lost rank is one error of ours, not LibTorch's stack traces
  const auto meeting = resolve(launch.address, launch.port);
  const bool one_machine = launch.local_size == launch.size;
  connection_->keeps_store = launch.rank == 0 && !launch.agent_store;
  connection_->store = connect_store(launch, connection_->keeps_store ? listening_socket(meeting, launch.port, one_machine) : -1);
  connection_->host = meeting.loopback() && !one_machine ? "" : own_address_towards(meeting);
  connection_->store->set(fmt::format("alive/{}", launch.rank), bytes_of("0"));
  wait_for_all(connection_->store, launch);
  connection_->store->setTimeout(kForever);
  const bool keeps_store = connection_->keeps_store;
  connection_->heartbeat = std::make_unique<Heartbeat>(
      launch.rank, launch.size, keeps_store, heartbeat_store(connect_store(launch, -1)), [this, keeps_store](const EndCause& cause) {
        end_process(fmt::format("[graft.parallel] expected {} ranks at step {} ({}), got rank {} ended: {} — the last checkpoint is kept: start again with --resume, also "
                                "with another number of processes (this is rank {})",
                                launch_.size, cause.step, cause.operation, cause.rank, cause.what, launch_.rank),
                    cause.exit_code, keeps_store);
      });
  use_device(at::kCPU);
}

ProcessGroup::~ProcessGroup() = default;

void ProcessGroup::use_device(const at::Device& device) {
  if (alone() || (connection_->backend && connection_->device == device)) return;
  connection_->device = device;
  connection_->heartbeat->set_place(connection_->step, "connecting the ranks");
  const auto store = c10::make_intrusive<c10d::PrefixStore>(device.is_cuda() ? "nccl" : "gloo", connection_->store);
  try {
    if (!device.is_cuda()) {
      connection_->backend = make_gloo_backend(store, launch_.rank, launch_.size, connection_->host);
      return;
    }
    const auto factory = reinterpret_cast<NcclFactory>(dlsym(RTLD_DEFAULT, "graft_nccl_backend"));
    if (!factory) throw MachineError("parallel", "expected libgraft_cuda.so to be loaded for run.device cuda, got none");
    connection_->backend = c10::intrusive_ptr<c10d::Backend>::reclaim(factory(store.get(), launch_.rank, launch_.size, device.index(), std::chrono::milliseconds(kForever).count()));
  } catch (const std::exception& error) {
    connection_->explain(error);
  }
}

void ProcessGroup::at_step(int64_t step) {
  if (!alone()) connection_->step = step;
}

void ProcessGroup::sum(at::Tensor& tensor, const std::string& operation) {
  if (!alone()) connection_->run(tensor, operation, [](c10d::Backend& backend, std::vector<at::Tensor>& tensors) { return backend.allreduce(tensors); });
}

void ProcessGroup::broadcast(at::Tensor& tensor, const std::string& operation) {
  if (!alone()) connection_->run(tensor, operation, [](c10d::Backend& backend, std::vector<at::Tensor>& tensors) { return backend.broadcast(tensors); });
}

std::unique_ptr<PendingGather> ProcessGroup::gather(at::Tensor& all, const at::Tensor& part, const std::string& operation) {
  struct Pending : PendingGather {
    Connection* connection = nullptr;
    c10::intrusive_ptr<c10d::Work> work;
    at::Tensor all, part;   // kept alive meanwhile
    void wait() override { connection->finish(*work); }
  };
  auto pending = std::make_unique<Pending>();
  pending->connection = connection_.get();
  pending->all = all;
  pending->part = part;
  TORCH_INTERNAL_ASSERT(!alone(), "a gather needs more than one rank");
  pending->work = connection_->start(operation, [&] { return connection_->backend->_allgather_base(pending->all, pending->part); });
  return pending;
}

std::vector<std::string> ProcessGroup::exchange(const std::string& value, const std::string& operation) {
  if (alone()) return {value};
  auto& store = *connection_->store;
  connection_->heartbeat->set_place(connection_->step, operation);
  std::vector<std::string> keys, values;
  for (int rank = 0; rank < size(); ++rank) keys.push_back(fmt::format("exchange/{}/{}", connection_->exchanges, rank));
  ++connection_->exchanges;
  try {
    store.set(keys[static_cast<size_t>(rank())], bytes_of(value.empty() ? "-" : value));
    for (const auto& key : keys) {
      store.wait({key}, kForever);
      values.push_back(text_of(store.get(key)));
    }
  } catch (const std::exception& error) {
    connection_->explain(error);
  }
  return values;
}

void ProcessGroup::leave() {
  if (alone()) return;
  exchange("", "the end");
  auto& store = *connection_->store;
  connection_->heartbeat.reset();
  try {   // rank 0 keeps the store until the others have read the last exchange
    if (!connection_->keeps_store) store.set(fmt::format("left/{}", rank()), bytes_of("1"));
    const auto start = std::chrono::steady_clock::now();
    for (int other = 1; connection_->keeps_store && other < size() && std::chrono::steady_clock::now() - start < 10s;) {
      if (store.check({fmt::format("left/{}", other)})) ++other;
      else std::this_thread::sleep_for(5ms);
    }
  } catch (const std::exception&) {
    // Everything common is done; a connection that broke since then is no loss.
  }
  connection_.reset();
  launch_.size = 1;   // rank stays: only rank 0 has something left to do
}

void ProcessGroup::end(const std::exception& error, int exit_code) {
  auto cause = connection_->heartbeat->place(rank(), error.what());
  cause.exit_code = exit_code;
  connection_->heartbeat->publish(cause);
  end_process(error.what(), exit_code, connection_->keeps_store);
}

}  // namespace graft
