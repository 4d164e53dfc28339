#include "kernels/device_launch/uploaded.h"

#include <algorithm>
#include <cstring>
#include <list>
#include <vector>

#include <ATen/ops/empty.h>

namespace graft {
namespace {

constexpr size_t kRemembered = 16;

struct Upload {
  c10::Device device;
  std::vector<std::byte> bytes;
  at::Tensor tensor;
};

}  // namespace

at::Tensor uploaded(std::span<const std::byte> bytes, const at::Tensor& x) {
  static thread_local auto& uploads = *new std::list<Upload>;   // never destroyed: at the process's end there may be no driver to free memory
  const auto known = std::find_if(uploads.begin(), uploads.end(), [&](const Upload& upload) { return upload.device == x.device() && std::ranges::equal(upload.bytes, bytes); });
  if (known != uploads.end()) {
    uploads.splice(uploads.begin(), uploads, known);
    return uploads.front().tensor;
  }
  const auto host = at::empty({static_cast<int64_t>(bytes.size() / sizeof(int32_t))}, at::kInt);
  if (!bytes.empty()) std::memcpy(host.data_ptr(), bytes.data(), bytes.size());
  uploads.push_front({x.device(), {bytes.begin(), bytes.end()}, host.to(x.device())});
  if (uploads.size() > kRemembered) uploads.pop_back();
  return uploads.front().tensor;
}

}  // namespace graft
