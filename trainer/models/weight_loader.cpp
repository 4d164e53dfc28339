#include "trainer/models/weight_loader.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <fmt/format.h>

#include "kernels/quantized/dequantize.h"
#include "trainer/models/delta_attention.h"
#include "trainer/models/latent_attention.h"
#include "trainer/models/mixture_of_experts.h"
#include "trainer/models/softmax_attention.h"

namespace graft {
namespace {

using Bytes = std::vector<std::byte>;

// Those columns of [rows, columns] that `form` takes, as rows; elements of `element_bytes`.
std::shared_ptr<Bytes> transposed(const std::byte* data, int64_t rows, int64_t columns, int64_t element_bytes, const StoredForm& form) {
  constexpr int64_t kTile = 32;   // so many rows are written at a time: more would fall out of the cache between two elements
  const int64_t taken = columns / form.interleaved;
  auto copy = std::make_shared<Bytes>(static_cast<size_t>(rows * taken * element_bytes));
  for (int64_t first = 0; first < taken; first += kTile) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = first; c < std::min(taken, first + kTile); ++c) {
        const auto* element = data + (r * columns + c * form.interleaved + form.phase) * element_bytes;
        std::memcpy(copy->data() + (c * rows + r) * element_bytes, element, static_cast<size_t>(element_bytes));
      }
    }
  }
  return copy;
}

// A tensor that is stored transposed. Blocks would be cut: they are decoded to float32, so that no value changes.
FrozenWeight from_transposed(const StoredTensor& tensor, const StoredForm& form) {
  const auto& layout = info(tensor.type);
  const bool plain = layout.block_elements == 1;
  Bytes decoded(plain ? 0 : static_cast<size_t>(tensor.num_elements()) * sizeof(float));
  if (!plain) dequantize(tensor.type, tensor.bytes.data(), tensor.num_elements(), reinterpret_cast<float*>(decoded.data()));
  const int64_t element_bytes = plain ? layout.block_bytes : static_cast<int64_t>(sizeof(float));
  auto copy = transposed(plain ? tensor.bytes.data() : decoded.data(), tensor.shape[0], tensor.shape[1], element_bytes, form);
  return FrozenWeight(plain ? tensor.type : TensorType::kF32, tensor.shape[1] / form.interleaved, tensor.shape[0], copy->data(), copy);
}

}  // namespace

WeightLoader::WeightLoader(const std::vector<BoundWeight>& bound, NameColumn column, std::shared_ptr<const TensorSource> source)
    : column_(column), source_(std::move(source)) {
  for (const auto& weight : bound) bound_[weight.rule->ours] = &weight;
}

const BoundWeight& WeightLoader::find(const std::string& ours) const {
  const auto it = bound_.find(ours);
  TORCH_INTERNAL_ASSERT(it != bound_.end(), "the weight map lacks ", ours);
  return *it->second;
}

FrozenWeight WeightLoader::matrix(const std::string& ours) const {
  const auto& weight = find(ours);
  const auto& tensor = *weight.tensor;
  if (weight.form->transposed) {
    auto ours = from_transposed(tensor, *weight.form);
    source_->forget(tensor.bytes);   // one copy in memory, not two
    return ours;
  }
  const auto order = stored_row_of_ours(*weight.rule, column_);
  FrozenWeight stored(tensor.type, tensor.shape[0], tensor.shape[1], tensor.bytes.data(), source_);
  if (order.empty()) return stored;
  // Rows move whole, so quantised blocks stay as they are; only these tensors are copied.
  auto copy = std::make_shared<Bytes>(stored.num_bytes());
  for (size_t row = 0; row < order.size(); ++row) {
    std::memcpy(copy->data() + row * stored.row_bytes(), stored.row(order[row]), stored.row_bytes());
  }
  source_->forget(tensor.bytes);
  return FrozenWeight(tensor.type, tensor.shape[0], tensor.shape[1], copy->data(), copy);
}

at::Tensor WeightLoader::vector(const std::string& ours) const {
  const auto& weight = find(ours);
  const auto size = weight.tensor->shape[0];
  auto stored = at::empty({size}, at::kFloat), result = at::empty({size}, at::kFloat);
  dequantize(weight.tensor->type, weight.tensor->bytes.data(), size, stored.data_ptr<float>());
  if (const auto& form = *weight.form; form.interleaved > 1) return stored.slice(0, form.phase, size, form.interleaved).contiguous();
  const float offset = weight.form->offset;
  for (int64_t i = 0; offset != 0 && i < size; ++i) stored.data_ptr<float>()[i] -= offset;
  for (int64_t i = 0; weight.form->minus_exponential && i < size; ++i) stored.data_ptr<float>()[i] = std::log(-stored.data_ptr<float>()[i]);
  const auto order = stored_row_of_ours(*weight.rule, column_);
  if (order.empty()) return stored;
  for (int64_t i = 0; i < size; ++i) result.data_ptr<float>()[i] = stored.data_ptr<float>()[order[i]];
  return result;
}

Linear WeightLoader::linear(const std::string& ours, bool bias) const {
  Linear linear;
  linear.ours = ours;
  linear.rules = {find(ours + ".weight").rule};
  linear.module_name = linear.rules[0]->module_name();
  linear.weight = matrix(ours + ".weight");
  if (bias) linear.bias_O = vector(ours + ".bias");
  return linear;
}

Linear WeightLoader::joined(const std::string& ours, const std::vector<std::string>& parts) const {
  Linear linear;
  linear.ours = ours;
  std::vector<FrozenWeight> weights;
  int64_t rows = 0;
  bool in_place = true, one_type = true;
  for (const auto& part : parts) {
    linear.rules.push_back(find(ours + "." + part + ".weight").rule);
    weights.push_back(matrix(ours + "." + part + ".weight"));
    const auto &first = weights.front(), &last = weights.back();
    in_place = in_place && last.row(0) == first.row(0) + rows * first.row_bytes() && !find(linear.rules.back()->ours).form->transposed;
    one_type = one_type && last.type() == first.type();
    rows += last.rows();
  }
  linear.module_name = linear.rules[0]->module_name();
  const auto& first = weights.front();
  const int64_t columns = first.columns();
  if (in_place && one_type) {
    linear.weight = FrozenWeight(first.type(), rows, columns, first.row(0), source_);
    return linear;
  }
  const auto type = one_type ? first.type() : TensorType::kF32;
  const int64_t row_bytes = one_type ? first.row_bytes() : columns * static_cast<int64_t>(sizeof(float));
  auto copy = std::make_shared<Bytes>(static_cast<size_t>(rows * row_bytes));
  auto* target = copy->data();
  for (const auto& weight : weights) {
    if (one_type) std::memcpy(target, weight.row(0), static_cast<size_t>(weight.num_bytes()));
    else weight.decode_rows(0, weight.rows(), reinterpret_cast<float*>(target), columns);
    target += weight.rows() * row_bytes;
    source_->forget({weight.row(0), static_cast<size_t>(weight.num_bytes())});
  }
  linear.weight = FrozenWeight(type, rows, columns, copy->data(), copy);
  return linear;
}

std::optional<Norm> WeightLoader::norm(const std::string& ours, const std::optional<NormSpec>& spec) const {
  if (!spec) return std::nullopt;
  return Norm{*spec, vector(ours + ".weight"), spec->kind == NormSpec::Kind::kLayer ? vector(ours + ".bias") : at::Tensor()};
}

std::unique_ptr<Block> WeightLoader::block(const std::string& prefix, const AttentionSpec& spec) const {
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

std::unique_ptr<Block> WeightLoader::block(const std::string& prefix, const LatentAttentionSpec& spec) const {
  auto attention = std::make_unique<LatentAttention>(spec);
  const auto name = prefix + "attention.";
  const NormSpec norm_spec{spec.latent_epsilon};
  if (spec.query_rank > 0) {
    attention->query_in = linear(name + "query_a", spec.bias);
    attention->query_norm = norm(name + "query_a_norm", norm_spec);
    attention->query_out = linear(name + "query_b", false);
  } else {
    attention->query_in = linear(name + "query", false);
  }
  attention->key_value_in = linear(name + "key_value_a", spec.bias);
  attention->key_value_norm = norm(name + "key_value_a_norm", norm_spec);
  std::vector<std::string> parts;
  for (int64_t head = 0; head < spec.num_heads; ++head) {
    for (const char* part : {"key", "value"}) parts.push_back(fmt::format("{}.{}", head, part));
  }
  attention->key_value_out = joined(name + "key_value_b", parts);
  attention->output = linear(name + "output", spec.bias);
  if (!spec.indexer || spec.indexer->shared) return attention;
  auto& indexer = attention->indexer.emplace(*spec.indexer);
  indexer.query = matrix(prefix + "indexer.query.weight");
  indexer.key = matrix(prefix + "indexer.key.weight");
  indexer.key_norm = *norm(prefix + "indexer.key_norm", NormSpec{spec.indexer->norm_epsilon, NormSpec::Kind::kLayer});
  indexer.weights = matrix(prefix + "indexer.weights.weight");
  return attention;
}

at::Tensor WeightLoader::values(const std::string& ours, const std::vector<std::string>& parts) const {
  std::vector<at::Tensor> all;
  for (const auto& part : parts) {
    const auto weight = matrix(ours + "." + part + ".weight");
    all.push_back(at::empty({weight.rows(), weight.columns()}, at::kFloat));
    weight.decode_rows(0, weight.rows(), all.back().data_ptr<float>(), weight.columns());
  }
  return at::cat(all);
}

std::unique_ptr<Block> WeightLoader::block(const std::string& prefix, const DeltaAttentionSpec& spec) const {
  using Form = DeltaAttentionSpec::Form;
  auto attention = std::make_unique<DeltaAttention>(spec);
  const auto name = prefix + "delta.";
  const auto add = [&](std::initializer_list<const char*> parts) {
    for (const auto* part : parts) attention->inputs.push_back(linear(name + part, false));
  };
  const std::vector<std::string> split = {"query_key", "value"};
  switch (spec.form) {
    case Form::kByKeyHead: {
      std::vector<std::string> parts;
      for (int64_t head = 0; head < spec.num_key_heads; ++head) {
        for (const char* part : {"query", "key", "value", "gate"}) parts.push_back(fmt::format("{}.{}", head, part));
      }
      attention->inputs.push_back(joined(name + "query_key_value_gate", parts));
      add({"beta_decay"});
      break;
    }
    case Form::kByPart:
      attention->inputs.push_back(joined(name + "query_key_value", split));
      add({"gate", "beta", "decay"});
      break;
    case Form::kLowRank:
      add({"query", "key", "value", "decay_a", "beta", "gate_a"});
      attention->decay_out = linear(name + "decay_b", false);
      attention->gate_out = linear(name + "gate_b", false);
  }
  attention->output = linear(name + "output", false);
  attention->convolution_CK = values(name + "convolution", spec.form == Form::kLowRank ? std::vector<std::string>{"query", "key", "value"} : split);
  attention->decay_rate_H = at::exp(vector(name + "decay_rate"));
  attention->decay_bias_A = vector(name + "decay_bias");
  attention->norm_weight_V = vector(name + "norm.weight");
  return attention;
}

Mlp WeightLoader::mlp(const std::string& prefix, const MlpSpec& spec) const {
  Mlp mlp(spec);
  const auto names = !spec.gated ? std::vector<std::string>{"up"} : spec.fused ? std::vector<std::string>{"gate_up"} : std::vector<std::string>{"gate", "up"};
  for (const auto& name : names) mlp.inputs.push_back(linear(prefix + name, spec.bias));
  mlp.down = linear(prefix + "down", spec.bias);
  return mlp;
}

std::unique_ptr<Block> WeightLoader::block(const std::string& prefix, const MlpSpec& spec) const { return std::make_unique<Mlp>(mlp(prefix + "mlp.", spec)); }

Linear WeightLoader::bank(const std::string& prefix, const std::string& name, const std::vector<std::string>& parts, const ExpertsSpec& spec) const {
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

std::unique_ptr<Block> WeightLoader::block(const std::string& prefix, const ExpertsSpec& spec) const {
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

}  // namespace graft
