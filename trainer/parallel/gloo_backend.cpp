#include "trainer/parallel/gloo_backend.h"

#include <cstdlib>

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

namespace graft {

c10::intrusive_ptr<c10d::Backend> make_gloo_backend(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size, const std::string& host) {
  using Gloo = c10d::ProcessGroupGloo;
  auto options = Gloo::Options::create(std::chrono::hours(24 * 7));   // the heartbeat finds out who is gone
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
  if (interface && *interface) {
    options->devices.push_back(Gloo::createDeviceForInterface(interface));
  } else {
    options->devices.push_back(host.empty() ? Gloo::createDefaultDevice() : Gloo::createDeviceForHostname(host));
  }
  options->threads = 1;   // one after the other: the order in which they were asked for
  return c10::make_intrusive<Gloo>(store, rank, size, options);
}

}  // namespace graft
