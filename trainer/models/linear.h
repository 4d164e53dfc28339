// A frozen Weight and an optional adapter slot. LoRA never appears in a family or a block beyond this slot.
#pragma once
#include <string>

#include <ATen/core/Tensor.h>

#include "checkpoints/weight_map.h"
#include "kernels/frozen_weight/frozen_weight.h"
#include "kernels/lora_linear/lora_linear.h"

namespace graft {

struct AdapterSlot {
  at::Tensor lora_a_RC, lora_b_OR;   // float32 leaves, views of the adapter set's flat buffer
  double scale = 0;
  double dropout = 0;
};

// Float32 vectors (norms, biases) move; undefined ones stay so.
inline void move_to(at::Tensor& tensor, c10::Device device) {
  if (tensor.defined()) tensor = tensor.to(device);
}

struct Linear {
  std::string ours;          // "layers.0.attention.query"
  std::string module_name;   // as PEFT names it: "model.layers.0.self_attn.q_proj"
  const WeightRule* rule = nullptr;   // of the weight: how files lay out its rows, and LoRA's B with them
  FrozenWeight weight;
  at::Tensor bias_O;         // float32 or undefined
  const AdapterSlot* adapter = nullptr;

  // A GPU gets a copy of the weight (in the stored type or `compute`); back on the CPU that copy goes.
  void set_device(c10::Device device, at::ScalarType compute) {
    if (device.is_cpu()) weight.drop_device_copy();
    else weight.to_device(device, compute);
    move_to(bias_O, device);
  }

  LinearPart part() const {
    LinearPart part;
    part.weight = &weight;
    part.bias_O = bias_O;
    if (adapter) {
      part.lora_a_RC = adapter->lora_a_RC;
      part.lora_b_OR = adapter->lora_b_OR;
      part.scale = adapter->scale;
    }
    return part;
  }
};

}  // namespace graft
