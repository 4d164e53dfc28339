// Who wants to know what the linears multiply with (Batch::observer): importance matrices are made so.
#pragma once
#include <cstdint>

#include <ATen/core/Tensor.h>

namespace graft {

struct Linear;

class InputObserver {
 public:
  virtual ~InputObserver() = default;
  // p_NC: rows that `linear` is multiplied with, or of a bank its expert.
  virtual void see(const Linear& linear, int64_t expert, const at::Tensor& p_NC) = 0;
};

}  // namespace graft
