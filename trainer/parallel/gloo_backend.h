// Makes the c10d backend between CPUs.
#pragma once
#include <string>

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace graft {

// host: this machine's address towards the others; empty: gloo's default. GLOO_SOCKET_IFNAME names an interface instead.
c10::intrusive_ptr<c10d::Backend> make_gloo_backend(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size, const std::string& host);

}  // namespace graft
