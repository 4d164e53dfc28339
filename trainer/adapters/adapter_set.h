// All LoRA adapters of a model in one flat float32 buffer, with their gradients beside it: one optimizer update, one collective, one hash.
#pragma once
#include <deque>
#include <string>
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
  int64_t offset_a = 0, offset_b = 0, rank = 0, inputs = 0, outputs = 0;   // rank, inputs and outputs of one expert
  AdapterSlot slot;

  int64_t size_a() const { return num_experts * rank * inputs; }
  int64_t size_b() const { return num_experts * outputs * rank; }
};

class AdapterSet {
 public:
  // Puts an adapter on every linear that `targets` name ("all-linear", a module's last name, or a glob over module names). A target that
  // matches nothing is a UserError that lists what there is. A: uniform(-1/sqrt(in), 1/sqrt(in)) from counters keyed by the parameter's
  // name; B: zero, so that the first forward is the base's.
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
  const Decoder& decoder() const { return decoder_; }
  int64_t num_parameters() const { return parameters.numel(); }

  // Moves parameters and gradients; whoever holds the old tensors holds stale ones.
  void set_device(c10::Device device);
  // Switches all adapters off and on again (base against adapter).
  void set_enabled(bool enabled);
  // Multiplies every adapter's contribution: planted faults in tests, chat's --adapter-scale.
  void set_scale(double factor);

 private:
  void make_slots();   // views of `parameters`

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
