// A decoder: frozen weights of a checkpoint in the form they came in, blocks built from a DecoderSpec, adapters in the linears' slots.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include "checkpoints/tensor_source.h"
#include "checkpoints/weight_map.h"
#include "trainer/models/batch.h"
#include "trainer/models/decoder_spec.h"
#include "trainer/models/dtypes.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "trainer/models/blocks.h"

namespace graft {

struct DecoderLayer {
  std::optional<Norm> mixer_norm, mixer_post_norm, channel_norm, channel_post_norm;
  std::unique_ptr<Block> mixer, channel;
};

// What one layer hands on to the next.
struct LayerStream {
  at::Tensor x_NC;
  at::Tensor selected_keys_NB;   // for a layer that sees the keys that this one saw (IndexerSpec::shared); else undefined
};

class Decoder {
 public:
  // `source` must hold exactly the map's tensors; its mapping stays open as long as the decoder.
  Decoder(DecoderSpec spec, WeightMap map, NameColumn column, std::shared_ptr<const TensorSource> source, ComputeType compute);

  // The only forward: normed hidden states [N, C] of all tokens. state null: training and evaluation, no earlier tokens.
  at::Tensor forward(const Batch& batch, DecodeState* state = nullptr) const;

  // Its pieces, for the step's own layer loop.
  at::Tensor embed(const Batch& batch) const;
  LayerStream run_layer(int64_t index, const LayerStream& input, const Batch& batch, DecodeState* state = nullptr, Routing* routing = nullptr) const;
  at::Tensor final_norm(const at::Tensor& x_NC) const;

  const FrozenWeight& embedding() const { return embedding_; }
  LinearHead head() const { return {spec_.tied_head ? embedding_ : head_, spec_.logit_softcap}; }
  FrozenWeight& mutable_head() { return spec_.tied_head ? embedding_ : head_; }
  const DecoderSpec& spec() const { return spec_; }
  const WeightMap& weight_map() const { return map_; }
  NameColumn column() const { return column_; }
  const TensorSource& source() const { return *source_; }
  ComputeType compute() const { return compute_; }
  void set_compute(ComputeType compute) { compute_ = compute; }
  // Where forward runs. A GPU gets copies of the weights that layers and head multiply with, and norms and rotary tables; set_device(cpu) drops
  // them. The mapped file stays the CPU's form. Decoding with a state needs the CPU.
  void set_device(c10::Device device);
  c10::Device device() const { return device_; }
  int64_t num_layers() const { return static_cast<int64_t>(layers_.size()); }

  // Every linear that an adapter may sit on, in order; not the head or the embedding. Layer index of each for the step.
  std::vector<Linear*> linears();
  std::vector<Linear*> linears_of_layer(int64_t index);
  const std::vector<BoundWeight>& weights() const { return bound_; }

  // Whether these documents give the same hidden states when their common beginning is computed once: not where their lengths choose between
  // two rotary tables, nor where a layer keeps a state.
  bool may_share_prefix(const Batch& batch) const;

  // Rotary tables reach this many positions; forward throws beyond. Grows on demand up to the model's own maximum.
  void ensure_positions(int64_t num_positions) const;

 private:
  DecoderSpec spec_;
  WeightMap map_;
  NameColumn column_;
  std::shared_ptr<const TensorSource> source_;
  std::vector<BoundWeight> bound_;
  ComputeType compute_;
  c10::Device device_ = c10::kCPU;
  FrozenWeight embedding_, position_embedding_, head_;
  std::optional<Norm> embedding_norm_, final_norm_;
  std::vector<DecoderLayer> layers_;
  mutable std::vector<RopeTable> ropes_;
};

}  // namespace graft
