#include "trainer/models/decoder.h"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>

#include "kernels/common/error.h"
#include "kernels/elementwise/typed_rows.h"
#include "kernels/quantized/dequantize.h"
#include "trainer/models/residual_sum.h"
#include "trainer/models/weight_loader.h"

namespace graft {

Decoder::Decoder(DecoderSpec spec, WeightMap map, NameColumn column, std::shared_ptr<const TensorSource> source, ComputeType compute)
    : spec_(std::move(spec)), map_(std::move(map)), column_(column), source_(std::move(source)), compute_(compute) {
  bound_ = bind_weights(map_, column_, *source_);
  const WeightLoader load(bound_, column_, source_);
  embedding_ = load.matrix("embedding.weight");
  if (!spec_.tied_head) head_ = load.matrix("head.weight");
  if (spec_.embedding.learned_positions) position_embedding_ = load.matrix("position_embedding.weight");
  embedding_norm_ = load.norm("embedding_norm", spec_.embedding.norm);
  final_norm_ = load.norm("final_norm", spec_.final_norm);
  for (size_t index = 0; index < spec_.layers.size(); ++index) {
    const auto& layer_spec = spec_.layers[index];
    const auto prefix = fmt::format("layers.{}.", index);
    DecoderLayer layer;
    layer.mixer_norm = load.norm(prefix + "mixer_norm", layer_spec.mixer_norm);
    layer.mixer_post_norm = load.norm(prefix + "mixer_post_norm", layer_spec.mixer_post_norm);
    layer.channel_norm = load.norm(prefix + "channel_norm", layer_spec.channel_norm);
    layer.channel_post_norm = load.norm(prefix + "channel_post_norm", layer_spec.channel_post_norm);
    layer.mixer = std::visit([&](const auto& spec) { return load.block(prefix, spec); }, layer_spec.mixer);
    layer.channel = std::visit([&](const auto& spec) { return load.block(prefix, spec); }, layer_spec.channel);
    layers_.push_back(std::move(layer));
  }
}

void Decoder::ensure_positions(int64_t num_positions) const {
  if (num_positions > spec_.max_positions) {
    fail("models", "expected at most {} positions in a row, got {} — shorten the rows (data.max_tokens) or take a model with a longer context",
         spec_.max_positions, num_positions);
  }
  if (spec_.ropes.empty()) return;
  const int64_t have = ropes_.empty() ? 0 : ropes_[0].num_positions;
  if (num_positions <= have) return;
  const int64_t grown = std::min(spec_.max_positions, std::max<int64_t>({num_positions, have * 2, 512}));
  ropes_.clear();
  for (const auto& rope : spec_.ropes) {
    auto table = make_rope_table(rope, grown);
    move_to(table.cosine_PE, device_);
    move_to(table.sine_PE, device_);
    move_to(table.query_scale_P, device_);
    ropes_.push_back(std::move(table));
  }
}

void Decoder::set_device(c10::Device device) {
  if (device == device_) return;
  const auto compute = scalar_type(compute_);
  auto& head = spec_.tied_head ? embedding_ : head_;   // rows to embed are decoded on the CPU
  if (device.is_cpu()) head.drop_device_copy();
  else head.to_device(device, compute, DeviceForm::kDecoded);
  final_norm_->set_device(device);   // the embedding's norm stays where the embedding is decoded
  for (auto& layer : layers_) {
    for (auto* norm : {&layer.mixer_norm, &layer.mixer_post_norm, &layer.channel_norm, &layer.channel_post_norm}) {
      if (*norm) (*norm)->set_device(device);
    }
    layer.mixer->set_device(device, compute);
    layer.channel->set_device(device, compute);
  }
  ropes_.clear();
  device_ = device;
}

at::Tensor Decoder::embed(const Batch& batch) const {
  const int64_t width = spec_.hidden_size;
  auto x_NC = at::empty({batch.num_tokens(), width}, scalar_type(compute_));
  int32_t last = 0;
  for (const auto position : batch.positions_N) last = std::max(last, position);
  ensure_positions(last + 1);
  std::vector<float> row(width), position_row(width);
  visit_elements(x_NC, [&](auto* target) {
    for (int64_t n = 0; n < batch.num_tokens(); ++n) {
      const auto token = batch.tokens_N[n];
      if (token < 0 || token >= spec_.vocab_size) {
        fail("models", "expected token ids from 0 to {}, got {} — the tokenizer does not belong to this model", spec_.vocab_size - 1, token);
      }
      dequantize(embedding_.type(), embedding_.row(token), width, row.data());
      if (spec_.embedding.scale != 1) rows::scale(row.data(), width, static_cast<float>(spec_.embedding.scale));
      if (spec_.embedding.learned_positions) {
        dequantize(position_embedding_.type(), position_embedding_.row(batch.positions_N[n]), width, position_row.data());
        rows::add(row.data(), position_row.data(), width);
      }
      rows::from_float(row.data(), width, target + n * width);
    }
  });
  // The embedding is decoded on the CPU, and so is its norm.
  return (embedding_norm_ ? embedding_norm_->apply(x_NC) : x_NC).to(device_);
}

LayerStream Decoder::run_layer(int64_t index, const LayerStream& input, const Batch& batch, DecodeState* state, Routing* routing) const {
  const auto& layer = layers_[index];
  std::vector<KeyValueCache*> caches;
  std::vector<DeltaState*> delta_states;
  if (state) {
    for (auto& kept : state->layers.at(index)) {
      caches.push_back(&kept.keys_values);
      delta_states.push_back(&kept.delta);
    }
  }
  LayerStream output{{}, input.selected_keys_NB};
  const LayerContext context{batch, ropes_, caches, delta_states, routing, &output.selected_keys_NB};
  const auto output_of = [&](const BlockInput& block_input, const Block& block, const std::optional<Norm>& after) {
    const auto output_NC = block.forward(block_input, context);
    return after ? after->apply(output_NC) : output_NC;
  };
  const auto mixed = add_to_residual(input.x_NC, output_of(normed_input(layer.mixer_norm, input.x_NC), *layer.mixer, layer.mixer_post_norm), layer.channel_norm);
  output.x_NC = at::add(mixed.x_NC, output_of(mixed.next, *layer.channel, layer.channel_post_norm));
  const auto next = static_cast<size_t>(index) + 1;
  if (next == spec_.layers.size() || !spec_.layers[next].takes_selected_keys()) output.selected_keys_NB = at::Tensor();
  return output;
}

at::Tensor Decoder::final_norm(const at::Tensor& x_NC) const { return final_norm_->apply(x_NC); }

at::Tensor Decoder::forward(const Batch& batch, DecodeState* state) const {
  const at::NoGradGuard no_gradient;
  LayerStream stream{embed(batch), {}};
  for (int64_t index = 0; index < num_layers(); ++index) stream = run_layer(index, stream, batch, state);
  return final_norm(stream.x_NC);
}

std::vector<Linear*> Decoder::linears_of_layer(int64_t index) {
  auto all = layers_.at(index).mixer->linears();
  for (auto* linear : layers_.at(index).channel->linears()) all.push_back(linear);
  return all;
}

bool Decoder::may_share_prefix(const Batch& batch) const {
  if (spec_.is_recurrent()) return false;   // a state would have to flow into all later documents
  for (const auto& rope : spec_.ropes) {
    if (rope.scaling != RopeSpec::Scaling::kLongRope) continue;
    const auto is_long = [&](int32_t position) { return position >= static_cast<int32_t>(rope.original_max_positions); };
    if (std::any_of(batch.positions_N.begin(), batch.positions_N.end(), is_long)) return false;
  }
  return true;
}

std::vector<Linear*> Decoder::linears() {
  std::vector<Linear*> all;
  for (int64_t index = 0; index < num_layers(); ++index) {
    for (auto* linear : linears_of_layer(index)) all.push_back(linear);
  }
  return all;
}

}  // namespace graft
