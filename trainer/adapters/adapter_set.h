// All that is trained of a model, LoRA adapters or whole matrices, in one flat float32 buffer, with their gradients beside it: one optimizer update, one collective, one hash.
#pragma once
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/models/decoder.h"
#include "trainer/recipe/recipe.h"

namespace graft {

struct Adapter {
  std::string module_name;         // "model.layers.0.self_attn.q_proj"
  std::vector<const WeightRule*> rules;   // of the weights: B's rows lie in files as the weights' do
  int64_t layer = 0;
  int64_t num_experts = 1, parts = 1;     // of a bank: A [E * R, C], B [E * O, R]; rules are [expert * parts + part], their rows one after another in B
  bool is_bank = false;
  bool is_whole = false;                  // no A and B: the matrix itself, [outputs, inputs] at offset_b, begins as the base's
  int64_t offset_a = 0, offset_b = 0, rank = 0, inputs = 0, outputs = 0;   // rank, inputs and outputs of one expert
  AdapterSlot slot;

  int64_t size_a() const { return is_whole ? 0 : num_experts * rank * inputs; }
  int64_t size_b() const { return is_whole ? outputs * inputs : num_experts * outputs * rank; }

  // What is trained of it, and where it begins in the flat buffer.
  std::vector<std::pair<at::Tensor, int64_t>> leaves() const {
    if (is_whole) return {{slot.whole_OC, offset_b}};
    return {{slot.lora_a_RC, offset_a}, {slot.lora_b_OR, offset_b}};
  }
};

class AdapterSet {
 public:
  // Puts an adapter on every linear that `targets` name ("all-linear", a module's last name, or a glob over module names). A target that
  // matches nothing is a UserError that lists what there is. A: uniform(-1/sqrt(in), 1/sqrt(in)) from counters keyed by the parameter's
  // name; B: zero, so that the first forward is the base's. Kind full: the matrices themselves; experts and dropout are a UserError then.
  AdapterSet(Decoder& decoder, const AdapterOptions& options, uint64_t seed);
  ~AdapterSet();
  AdapterSet(const AdapterSet&) = delete;

  at::Tensor parameters;   // flat float32
  // flat float64, same layout: sums over micro-batches and processes, so exact that their order leaves no trace once they are rounded to float32
  at::Tensor gradients;
  const std::deque<Adapter>& adapters() const { return adapters_; }
  const std::vector<Adapter*>& adapters_of_layer(int64_t layer) const { return by_layer_.at(layer); }
  int64_t lowest_layer() const { return lowest_layer_; }   // num_layers when there is none
  double scale() const { return scale_; }
  Decoder& decoder() const { return decoder_; }
  int64_t num_parameters() const { return parameters.numel(); }

  // Float32 values that are trained beside the adapters and are none of them (trainer/distillation/hidden_matching.h), behind all that is there. Returns where they begin. On the CPU.
  int64_t append(const at::Tensor& values);

  // Moves parameters and gradients; whoever holds the old tensors holds stale ones.
  void set_device(c10::Device device);
  // Switches all adapters off and on again (base against adapter).
  void set_enabled(bool enabled);
  // Multiplies every adapter's contribution, not whole matrices: planted faults in tests, chat's --adapter-scale.
  void set_scale(double factor);

 private:
  void make_slots();   // views of `parameters`
  void read_in_place(Adapter& adapter);

  Decoder& decoder_;
  std::deque<Adapter> adapters_;            // stable addresses: linears point into it
  std::vector<std::vector<Adapter*>> by_layer_;
  std::vector<Linear*> linears_;
  int64_t lowest_layer_ = 0;
  double scale_ = 0;
};

// The modules that `targets` name, in the model's order. UserError as above.
std::vector<std::string> matching_modules(const std::vector<std::string>& modules, const std::vector<std::string>& targets);

// alpha/rank, or alpha/sqrt(rank) for rslora (Kalajdzievski 2023, arXiv 2312.03732).
double adapter_scale(const AdapterOptions& options);

}  // namespace graft
