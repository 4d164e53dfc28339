// LibTorch's ProcessGroupGloo.hpp names a few types of gloo, whose headers the wheel lacks (its code is inside libtorch_cpu). These are the
// declarations that the header needs to be read: graft calls ProcessGroupGloo only, and makes or derives none of these types.
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

}  // namespace gloo
