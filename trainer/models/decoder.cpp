#include "trainer/models/decoder.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include "kernels/common/error.h"
#include "kernels/elementwise/typed_rows.h"
#include "kernels/quantized/dequantize.h"
#include "trainer/models/mixture_of_experts.h"
#include "trainer/models/mlp.h"
#include "trainer/models/softmax_attention.h"

namespace graft {
namespace {

// [rows, columns] to [columns, rows], elements of `element_bytes`.
std::shared_ptr<std::vector<std::byte>> transposed(const std::byte* data, int64_t rows, int64_t columns, int64_t element_bytes) {
  auto copy = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(rows * columns * element_bytes));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      std::memcpy(copy->data() + (c * rows + r) * element_bytes, data + (r * columns + c) * element_bytes, static_cast<size_t>(element_bytes));
    }
  }
  return copy;
}

// Finds a rule's tensor and makes our form of it.
class WeightLoader {
 public:
  WeightLoader(const std::vector<BoundWeight>& bound, NameColumn column, std::shared_ptr<const TensorSource> source)
      : column_(column), source_(std::move(source)) {
    for (const auto& weight : bound) bound_[weight.rule->ours] = &weight;
  }

  FrozenWeight matrix(const std::string& ours) const {
    const auto& weight = find(ours);
    const auto& tensor = *weight.tensor;
    const auto order = stored_row_of_ours(*weight.rule, column_);
    if (weight.form->transposed) {
      const auto& layout = info(tensor.type);
      if (layout.block_elements != 1) fail("models", "expected plain numbers in {}, which is stored transposed, got {}", tensor.name, layout.name);
      const auto& form = *weight.form;
      auto copy = transposed(tensor.bytes.data(), tensor.shape[0], tensor.shape[1], layout.block_bytes);
      const int64_t row_bytes = tensor.shape[0] * layout.block_bytes, rows = tensor.shape[1] / form.interleaved;
      for (int64_t row = 0; form.interleaved > 1 && row < rows; ++row) {   // moves down only, so in place
        std::memmove(copy->data() + row * row_bytes, copy->data() + (row * form.interleaved + form.phase) * row_bytes, static_cast<size_t>(row_bytes));
      }
      copy->resize(static_cast<size_t>(rows * row_bytes));
      copy->shrink_to_fit();
      return FrozenWeight(tensor.type, rows, tensor.shape[0], copy->data(), copy);
    }
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
    if (const auto& form = *weight.form; form.interleaved > 1) return stored.slice(0, form.phase, size, form.interleaved).contiguous();
    const float offset = weight.form->offset;
    for (int64_t i = 0; offset != 0 && i < size; ++i) stored.data_ptr<float>()[i] -= offset;
    const auto order = stored_row_of_ours(*weight.rule, column_);
    if (order.empty()) return stored;
    for (int64_t i = 0; i < size; ++i) result.data_ptr<float>()[i] = stored.data_ptr<float>()[order[i]];
    return result;
  }

  Linear linear(const std::string& ours, bool bias) const {
    Linear linear;
    linear.ours = ours;
    linear.rules = {find(ours + ".weight").rule};
    linear.module_name = linear.rules[0]->module_name();
    linear.weight = matrix(ours + ".weight");
    if (bias) linear.bias_O = vector(ours + ".bias");
    return linear;
  }

  std::optional<Norm> norm(const std::string& ours, const std::optional<NormSpec>& spec) const {
    if (!spec) return std::nullopt;
    return Norm{*spec, vector(ours + ".weight"), spec->kind == NormSpec::Kind::kLayer ? vector(ours + ".bias") : at::Tensor()};
  }

  std::unique_ptr<Block> block(const std::string& prefix, const AttentionSpec& spec) const {
    auto attention = std::make_unique<SoftmaxAttention>(spec);
    const auto names = spec.fused ? std::vector<std::string>{"attention.qkv"} : std::vector<std::string>{"attention.query", "attention.key", "attention.value"};
    for (const auto& name : names) attention->inputs.push_back(linear(prefix + name, spec.input_bias));
    attention->output = linear(prefix + "attention.output", spec.output_bias);
    if (spec.sinks) attention->sinks_H = vector(prefix + "attention.sinks");
    if (spec.head_norm) {
      attention->query_norm = vector(prefix + "attention.query_norm.weight");
      attention->key_norm = vector(prefix + "attention.key_norm.weight");
    }
    return attention;
  }

  Mlp mlp(const std::string& prefix, const MlpSpec& spec) const {
    Mlp mlp(spec);
    const auto names = !spec.gated ? std::vector<std::string>{"up"} : spec.fused ? std::vector<std::string>{"gate_up"} : std::vector<std::string>{"gate", "up"};
    for (const auto& name : names) mlp.inputs.push_back(linear(prefix + name, spec.bias));
    mlp.down = linear(prefix + "down", spec.bias);
    return mlp;
  }

  std::unique_ptr<Block> block(const std::string& prefix, const MlpSpec& spec) const { return std::make_unique<Mlp>(mlp(prefix + "mlp.", spec)); }

  // The matrices of all experts, `parts` of each over each other.
  Linear bank(const std::string& prefix, const std::string& name, const std::vector<std::string>& parts, const ExpertsSpec& spec) const {
    Linear bank;
    bank.ours = prefix + "experts." + name;
    bank.num_experts = spec.router.num_experts;
    for (int64_t expert = 0; expert < bank.num_experts; ++expert) {
      for (const auto& part : parts) {
        const auto ours = fmt::format("{}experts.{}.{}.weight", prefix, expert, part);
        bank.rules.push_back(find(ours).rule);
        bank.experts.push_back(matrix(ours));
      }
    }
    bank.module_name = bank.rules[0]->module_name();
    if (!spec.bias) return bank;
    std::vector<at::Tensor> biases;
    for (int64_t expert = 0; expert < bank.num_experts; ++expert) {
      for (const auto& part : parts) biases.push_back(vector(fmt::format("{}experts.{}.{}.bias", prefix, expert, part)));
    }
    bank.bias_O = at::cat(biases).view({bank.num_experts, -1});
    return bank;
  }

  std::unique_ptr<Block> block(const std::string& prefix, const ExpertsSpec& spec) const {
    auto mixture = std::make_unique<MixtureOfExperts>(spec);
    mixture->router = matrix(prefix + "router.weight");
    if (spec.router.bias) mixture->router_bias_E = vector(prefix + "router.bias");
    if (spec.router.selection_bias) mixture->selection_bias_E = vector(prefix + "router.selection_bias");
    mixture->gate_up = bank(prefix, "gate_up", {"gate", "up"}, spec);
    mixture->down = bank(prefix, "down", {"down"}, spec);
    if (spec.shared_width == 0) return mixture;
    MlpSpec shared;
    shared.width = spec.shared_width;
    mixture->shared = mlp(prefix + "shared.", shared);
    if (spec.shared_gate) mixture->shared_gate = matrix(prefix + "shared_gate.weight");
    return mixture;
  }

 private:
  const BoundWeight& find(const std::string& ours) const {
    const auto it = bound_.find(ours);
    TORCH_INTERNAL_ASSERT(it != bound_.end(), "the weight map lacks ", ours);
    return *it->second;
  }

  std::unordered_map<std::string, const BoundWeight*> bound_;
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
  else head.to_device(device, compute);
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

at::Tensor Decoder::run_layer(int64_t index, const at::Tensor& x_NC, const Batch& batch, DecodeState* state, Routing* routing) const {
  const auto& layer = layers_[index];
  std::vector<KeyValueCache*> caches;
  if (state) {
    for (auto& cache : state->layers.at(index)) caches.push_back(&cache);
  }
  const LayerContext context{batch, ropes_, caches, routing};
  const auto residual = [&](const at::Tensor& input_NC, const std::optional<Norm>& before, const Block& block, const std::optional<Norm>& after) {
    const auto output_NC = block.forward(normed_input(before, input_NC), context);
    return at::add(input_NC, after ? after->apply(output_NC) : output_NC);
  };
  const auto mixed_NC = residual(x_NC, layer.mixer_norm, *layer.mixer, layer.mixer_post_norm);
  return residual(mixed_NC, layer.channel_norm, *layer.channel, layer.channel_post_norm);
}

at::Tensor Decoder::final_norm(const at::Tensor& x_NC) const { return final_norm_->apply(x_NC); }

at::Tensor Decoder::forward(const Batch& batch, DecodeState* state) const {
  const at::NoGradGuard no_gradient;
  auto x_NC = embed(batch);
  for (int64_t index = 0; index < num_layers(); ++index) x_NC = run_layer(index, x_NC, batch, state);
  return final_norm(x_NC);
}

std::vector<Linear*> Decoder::linears_of_layer(int64_t index) {
  auto all = layers_.at(index).mixer->linears();
  for (auto* linear : layers_.at(index).channel->linears()) all.push_back(linear);
  return all;
}

bool Decoder::may_share_prefix(const Batch& batch) const {
  for (const auto& rope : spec_.ropes) {
    if (rope.scaling != RopeSpec::Scaling::kLongRope) continue;
    const auto is_long = [&](int32_t position) { return position >= static_cast<int32_t>(rope.original_max_positions); };
    if (std::any_of(batch.positions_N.begin(), batch.positions_N.end(), is_long)) return false;
  }
  return true;
}

void Decoder::reserve(DecodeState& state, size_t sequence, int64_t tokens) const {
  for (size_t layer = 0; layer < spec_.layers.size(); ++layer) {
    const auto* attention = std::get_if<AttentionSpec>(&spec_.layers[layer].mixer);
    if (attention) state.layers[layer][sequence].reserve(tokens, attention->num_kv_heads, attention->head_size);
  }
}

std::vector<Linear*> Decoder::linears() {
  std::vector<Linear*> all;
  for (int64_t index = 0; index < num_layers(); ++index) {
    for (auto* linear : linears_of_layer(index)) all.push_back(linear);
  }
  return all;
}

}  // namespace graft
