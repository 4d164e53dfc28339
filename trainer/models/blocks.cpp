#include "trainer/models/blocks.h"

#include <algorithm>

#include <ATen/ops/empty.h>

#include "trainer/models/input_observer.h"

namespace graft {
namespace {

// Of the first that has an adapter: it may not be the first of all (adapter.targets).
LoraDropout dropout_of(const std::vector<const Linear*>& linears, const Batch& batch) {
  LoraDropout dropout;
  const auto adapted = std::find_if(linears.begin(), linears.end(), [](const Linear* linear) { return linear->adapter != nullptr; });
  if (adapted == linears.end() || (*adapted)->adapter->dropout == 0 || batch.dropout_seed == 0) return dropout;
  dropout.probability = (*adapted)->adapter->dropout;
  // FNV-1a of the name: the same on every machine, unlike std::hash.
  dropout.key = 1469598103934665603u ^ batch.dropout_seed;
  for (const char c : (*adapted)->module_name) dropout.key = (dropout.key ^ static_cast<uint8_t>(c)) * 1099511628211u;
  dropout.row_keys_N = at::empty({batch.num_tokens()}, at::kLong);
  std::copy(batch.row_keys_N.begin(), batch.row_keys_N.end(), dropout.row_keys_N.data_ptr<int64_t>());
  return dropout;
}

}  // namespace

void Block::set_device(c10::Device device, at::ScalarType compute) {
  for (auto* linear : linears()) linear->set_device(device, compute);
}

at::Tensor float_product(const FrozenWeight& weight, const at::Tensor& bias_O, const at::Tensor& x_NC) {
  LinearPart part;
  part.weight = &weight;
  part.bias_O = bias_O;
  return lora_linear(x_NC.to(at::kFloat), {}, {part});
}

at::Tensor project(const BlockInput& input, const std::vector<const Linear*>& linears, const Batch& batch) {
  std::vector<LinearPart> parts;
  for (const auto* linear : linears) parts.push_back(linear->part());
  if (batch.observer) {
    const auto p_NC = linear_prologue_reference(input.x_NC, input.prologue);
    for (const auto* linear : linears) batch.observer->see(*linear, 0, p_NC);
  }
  return lora_linear(input.x_NC, input.prologue, parts, dropout_of(linears, batch));
}

}  // namespace graft
