#include "trainer/models/decoder.h"

#include <algorithm>
#include <cstring>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>

#include "kernels/common/error.h"
#include "kernels/elementwise/typed_rows.h"
#include "kernels/quantized/dequantize.h"
#include "kernels/rms_norm/rms_norm.h"

namespace graft {
namespace {

// Finds a rule's tensor and makes our form of it.
class WeightLoader {
 public:
  WeightLoader(const std::vector<BoundWeight>& bound, NameColumn column, std::shared_ptr<const TensorSource> source)
      : bound_(bound), column_(column), source_(std::move(source)) {}

  FrozenWeight matrix(const std::string& ours) const {
    const auto& weight = find(ours);
    const auto& tensor = *weight.tensor;
    const auto order = stored_row_of_ours(*weight.rule, column_);
    FrozenWeight stored(tensor.type, tensor.shape[0], tensor.shape[1], tensor.bytes.data(), source_);
    if (order.empty()) return stored;
    // Rows move whole, so quantised blocks stay as they are; only these tensors are copied.
    auto copy = std::make_shared<std::vector<std::byte>>(stored.num_bytes());
    for (size_t row = 0; row < order.size(); ++row) {
      std::memcpy(copy->data() + row * stored.row_bytes(), stored.row(order[row]), stored.row_bytes());
    }
    return FrozenWeight(tensor.type, tensor.shape[0], tensor.shape[1], copy->data(), copy);
  }

  at::Tensor vector(const std::string& ours) const {
    const auto& weight = find(ours);
    const auto size = weight.tensor->shape[0];
    auto stored = at::empty({size}, at::kFloat), result = at::empty({size}, at::kFloat);
    dequantize(weight.tensor->type, weight.tensor->bytes.data(), size, stored.data_ptr<float>());
    const auto order = stored_row_of_ours(*weight.rule, column_);
    if (order.empty()) return stored;
    for (int64_t i = 0; i < size; ++i) result.data_ptr<float>()[i] = stored.data_ptr<float>()[order[i]];
    return result;
  }

  Linear linear(const std::string& ours, bool bias) const {
    Linear linear;
    linear.ours = ours;
    const auto& hub = find(ours + ".weight").rule->hub;
    linear.module_name = hub.substr(0, hub.size() - std::strlen(".weight"));
    linear.weight = matrix(ours + ".weight");
    if (bias) linear.bias_O = vector(ours + ".bias");
    return linear;
  }

 private:
  const BoundWeight& find(const std::string& ours) const {
    const auto it = std::find_if(bound_.begin(), bound_.end(), [&](const BoundWeight& weight) { return weight.rule->ours == ours; });
    TORCH_INTERNAL_ASSERT(it != bound_.end(), "the weight map lacks ", ours);
    return *it;
  }

  const std::vector<BoundWeight>& bound_;
  NameColumn column_;
  std::shared_ptr<const TensorSource> source_;
};

}  // namespace

Decoder::Decoder(DecoderSpec spec, WeightMap map, NameColumn column, std::shared_ptr<const TensorSource> source, ComputeType compute)
    : spec_(std::move(spec)), map_(std::move(map)), column_(column), source_(std::move(source)), compute_(compute) {
  bound_ = bind_weights(map_, column_, *source_);
  const WeightLoader load(bound_, column_, source_);
  embedding_ = load.matrix("embedding.weight");
  if (!spec_.tied_head) head_ = load.matrix("head.weight");
  final_norm_C_ = load.vector("final_norm.weight");
  for (size_t index = 0; index < spec_.layers.size(); ++index) {
    const auto& layer_spec = spec_.layers[index];
    const auto prefix = fmt::format("layers.{}.", index);
    DecoderLayer layer;
    auto& attention = layer.attention;
    attention.spec = layer_spec.attention;
    attention.norm_epsilon = layer_spec.mixer_norm.epsilon;
    attention.norm_weight_C = load.vector(prefix + "mixer_norm.weight");
    if (layer_spec.attention.head_norm) {
      attention.query_norm_D = load.vector(prefix + "attention.query_norm.weight");
      attention.key_norm_D = load.vector(prefix + "attention.key_norm.weight");
    }
    attention.query = load.linear(prefix + "attention.query", layer_spec.attention.input_bias);
    attention.key = load.linear(prefix + "attention.key", layer_spec.attention.input_bias);
    attention.value = load.linear(prefix + "attention.value", layer_spec.attention.input_bias);
    attention.output = load.linear(prefix + "attention.output", layer_spec.attention.output_bias);
    auto& mlp = layer.mlp;
    mlp.norm_epsilon = layer_spec.channel_norm.epsilon;
    mlp.norm_weight_C = load.vector(prefix + "channel_norm.weight");
    mlp.gate = load.linear(prefix + "mlp.gate", layer_spec.mlp.bias);
    mlp.up = load.linear(prefix + "mlp.up", layer_spec.mlp.bias);
    mlp.down = load.linear(prefix + "mlp.down", layer_spec.mlp.bias);
    layers_.push_back(std::move(layer));
  }
}

void Decoder::ensure_positions(int64_t num_positions) const {
  if (num_positions > spec_.max_positions) {
    fail("models", "expected at most {} positions in a row, got {} — shorten the rows (data.max_tokens) or take a model with a longer context",
         spec_.max_positions, num_positions);
  }
  const int64_t have = ropes_.empty() ? 0 : ropes_[0].cosine_PE.size(0);
  if (num_positions <= have) return;
  const int64_t grown = std::min(spec_.max_positions, std::max<int64_t>({num_positions, have * 2, 512}));
  ropes_.clear();
  for (const auto& rope : spec_.ropes) {
    auto table = make_rope_table(rope, grown);
    move_to(table.cosine_PE, device_);
    move_to(table.sine_PE, device_);
    ropes_.push_back(std::move(table));
  }
}

void Decoder::set_device(c10::Device device) {
  if (device == device_) return;
  const auto compute = scalar_type(compute_);
  auto& head = spec_.tied_head ? embedding_ : head_;   // rows to embed are decoded on the CPU
  if (device.is_cpu()) head.drop_device_copy();
  else head.to_device(device, compute);
  move_to(final_norm_C_, device);
  for (auto& layer : layers_) {
    layer.attention.set_device(device, compute);
    layer.mlp.set_device(device, compute);
  }
  ropes_.clear();
  device_ = device;
}

at::Tensor Decoder::embed(const Batch& batch) const {
  const int64_t width = spec_.hidden_size;
  auto x_NC = at::empty({batch.num_tokens(), width}, scalar_type(compute_));
  std::vector<float> row(width);
  visit_elements(x_NC, [&](auto* target) {
    for (int64_t n = 0; n < batch.num_tokens(); ++n) {
      const auto token = batch.tokens_N[n];
      if (token < 0 || token >= spec_.vocab_size) {
        fail("models", "expected token ids from 0 to {}, got {} — the tokenizer does not belong to this model", spec_.vocab_size - 1, token);
      }
      dequantize(embedding_.type(), embedding_.row(token), width, row.data());
      rows::from_float(row.data(), width, target + n * width);
    }
  });
  int32_t last = 0;
  for (const auto position : batch.positions_N) last = std::max(last, position);
  ensure_positions(last + 1);
  return x_NC.to(device_);
}

at::Tensor Decoder::run_layer(int64_t index, const at::Tensor& x_NC, const Batch& batch, DecodeState* state) const {
  const auto& layer = layers_[index];
  std::vector<KeyValueCache*> caches;
  if (state) {
    for (auto& cache : state->layers.at(index)) caches.push_back(&cache);
  }
  const auto mixed_NC = at::add(x_NC, layer.attention.forward(x_NC, ropes_[layer.attention.spec.rope], batch, caches));
  return at::add(mixed_NC, layer.mlp.forward(mixed_NC, batch));
}

at::Tensor Decoder::final_norm(const at::Tensor& x_NC) const { return rms_norm(x_NC, final_norm_C_, spec_.final_norm.epsilon); }

at::Tensor Decoder::forward(const Batch& batch, DecodeState* state) const {
  const at::NoGradGuard no_gradient;
  auto x_NC = embed(batch);
  for (int64_t index = 0; index < num_layers(); ++index) x_NC = run_layer(index, x_NC, batch, state);
  return final_norm(x_NC);
}

std::vector<Linear*> Decoder::linears_of_layer(int64_t index) {
  auto& layer = layers_.at(index);
  return {&layer.attention.query, &layer.attention.key, &layer.attention.value, &layer.attention.output,
          &layer.mlp.gate,        &layer.mlp.up,        &layer.mlp.down};
}

std::vector<Linear*> Decoder::linears() {
  std::vector<Linear*> all;
  for (int64_t index = 0; index < num_layers(); ++index) {
    for (auto* linear : linears_of_layer(index)) all.push_back(linear);
  }
  return all;
}

}  // namespace graft
