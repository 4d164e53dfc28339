// A frozen weight, or one of every expert, and an optional adapter slot. LoRA never appears in a family or a block beyond this slot.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "checkpoints/weight_map.h"
#include "kernels/experts/experts.h"
#include "kernels/frozen_weight/frozen_weight.h"
#include "kernels/lora_linear/lora_linear.h"

namespace graft {

struct AdapterSlot {
  at::Tensor lora_a_RC, lora_b_OR;   // float32 leaves, views of the adapter set's flat buffer; of a bank [E * R, C] and [E * O, R]
  at::Tensor whole_OC;               // in their place, where the matrix itself is trained: float32, a view of the same buffer; `served` reads it
  double scale = 0;
  double dropout = 0;
  // The weights with the adapter in them, as an export rounds them (trainer/exports/served_weights.h), in place of the base's: one, or of a bank one of each matrix.
  // Empty: the adapter's product is added to the base's.
  std::vector<FrozenWeight> served;
};

// Float32 vectors (norms, biases) move; undefined ones stay so.
inline void move_to(at::Tensor& tensor, c10::Device device) {
  if (tensor.defined()) tensor = tensor.to(device);
}

// The same of a matrix that is multiplied in float32 and that no adapter sits on.
inline void move_float(FrozenWeight& weight, c10::Device device) {
  if (device.is_cpu()) weight.drop_device_copy();
  else weight.to_device(device, at::kFloat);
}

struct Linear {
  std::string ours;          // "layers.0.attention.query"
  std::string module_name;   // as PEFT names it: "model.layers.0.self_attn.q_proj"
  // Of the weights: how files lay out their rows, and LoRA's B with them. Several where one matrix is several tensors in files of a column, in the order of its rows.
  std::vector<const WeightRule*> rules;
  FrozenWeight weight;
  at::Tensor bias_O;         // float32 or undefined; of experts [E, O]
  // A bank in place of `weight`: one matrix of every expert, [expert * parts + part], each with its own factors in one adapter (kernels/experts).
  std::vector<FrozenWeight> experts;
  int64_t num_experts = 1;
  const AdapterSlot* adapter = nullptr;

  bool is_bank() const { return !experts.empty(); }
  int64_t parts() const { return is_bank() ? static_cast<int64_t>(experts.size()) / num_experts : std::max<int64_t>(1, static_cast<int64_t>(rules.size())); }
  int64_t inputs() const { return is_bank() ? experts.front().columns() : weight.columns(); }
  int64_t outputs() const {   // of one expert
    if (!is_bank()) return weight.rows();
    int64_t rows = 0;
    for (int64_t part = 0; part < parts(); ++part) rows += experts[static_cast<size_t>(part)].rows();
    return rows;
  }
  std::vector<FrozenWeight*> weights() {
    if (!is_bank()) return {&weight};
    std::vector<FrozenWeight*> all;
    for (auto& one : experts) all.push_back(&one);
    return all;
  }

  // A GPU gets a copy of the weights (as stored or in `compute`); back on the CPU that copy goes.
  void set_device(c10::Device device, at::ScalarType compute) {
    for (auto* one : weights()) {
      if (device.is_cpu()) one->drop_device_copy();
      else one->to_device(device, compute);
    }
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
      part.whole_OC = adapter->whole_OC;
      part.merged = !adapter->served.empty();
      if (part.merged) part.weight = &adapter->served.front();
    }
    return part;
  }

  ExpertBank bank() const {
    ExpertBank bank;
    bank.num_experts = num_experts;
    bank.parts = parts();
    for (const auto& one : experts) bank.weights.push_back(&one);
    bank.bias_EO = bias_O;
    if (adapter) {
      bank.lora_a_EC = adapter->lora_a_RC;
      bank.lora_b_ER = adapter->lora_b_OR;
      bank.scale = adapter->scale;
      bank.merged = !adapter->served.empty();
      for (size_t i = 0; i < adapter->served.size(); ++i) bank.weights[i] = &adapter->served[i];
    }
    return bank;
  }
};

inline std::vector<const Linear*> addresses(const std::vector<Linear>& linears) {
  std::vector<const Linear*> all;
  for (const auto& linear : linears) all.push_back(&linear);
  return all;
}

}  // namespace graft
