#include "trainer/steps/micro_batch.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace graft {
namespace {

struct SupervisedRows {
  at::Tensor index_M;   // int64
  std::vector<int32_t> labels_M;
  std::vector<float> weights_M;
};

SupervisedRows supervised_rows(const Batch& batch, c10::Device device) {
  SupervisedRows rows;
  std::vector<int64_t> index;
  for (int64_t n = 0; n < batch.num_tokens(); ++n) {
    if (batch.labels_N[n] == kUnsupervised) continue;
    index.push_back(n);
    rows.labels_M.push_back(batch.labels_N[n]);
    if (!batch.weights_N.empty()) rows.weights_M.push_back(batch.weights_N[n]);
  }
  rows.index_M = at::empty({static_cast<int64_t>(index.size())}, at::kLong);
  std::copy(index.begin(), index.end(), rows.index_M.data_ptr<int64_t>());
  rows.index_M = rows.index_M.to(device);
  return rows;
}

// One layer's input (a leaf) and, when its graph is kept, its output.
struct LayerRecord {
  at::Tensor input_NC, output_NC;
};

void backward_layer(const Decoder& decoder, AdapterSet& adapters, const Batch& batch, int64_t layer, LayerRecord record,
                    at::Tensor& gradient_NC) {
  if (!record.output_NC.defined()) {
    const c10::AutoGradMode with_gradient(true);
    record.output_NC = decoder.run_layer(layer, record.input_NC, batch);
  }
  std::vector<at::Tensor> inputs;
  const bool below = record.input_NC.requires_grad();
  if (below) inputs.push_back(record.input_NC);
  for (const auto* adapter : adapters.adapters_of_layer(layer)) {
    inputs.push_back(adapter->slot.lora_a_RC);
    inputs.push_back(adapter->slot.lora_b_OR);
  }
  auto gradients = torch::autograd::grad({record.output_NC}, inputs, {gradient_NC}, /*retain_graph=*/false, /*create_graph=*/false);
  size_t slot = below ? 1 : 0;
  for (const auto* adapter : adapters.adapters_of_layer(layer)) {
    adapters.gradients.narrow(0, adapter->offset_a, adapter->rank * adapter->inputs).add_(gradients[slot].reshape(-1));
    adapters.gradients.narrow(0, adapter->offset_b, adapter->rank * adapter->outputs).add_(gradients[slot + 1].reshape(-1));
    slot += 2;
  }
  gradient_NC = below ? gradients[0] : at::Tensor();
}

}  // namespace

MicroBatchResult run_micro_batch(const Decoder& decoder, AdapterSet* adapters, const Batch& rows_batch, const MicroBatchOptions& options) {
  const Batch batch = options.share_prefix && decoder.may_share_prefix(rows_batch) ? share_prefix(rows_batch) : rows_batch;
  const c10::AutoGradMode no_gradient(false);
  const int64_t num_layers = decoder.num_layers();
  const int64_t lowest = options.want_gradient ? adapters->lowest_layer() : num_layers;
  std::vector<LayerRecord> records(num_layers);
  auto x_NC = decoder.embed(batch);
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    if (options.weights) options.weights->use_layer(layer);
    if (layer < lowest) {
      x_NC = decoder.run_layer(layer, x_NC, batch);
      continue;
    }
    auto& record = records[layer];
    record.input_NC = x_NC.detach().requires_grad_(layer > lowest);
    const c10::AutoGradMode keep_graph(options.recompute == Recompute::kNone);
    const auto output_NC = decoder.run_layer(layer, record.input_NC, batch);
    if (options.recompute == Recompute::kNone) record.output_NC = output_NC;
    x_NC = output_NC.detach();
  }
  const auto rows = supervised_rows(batch, x_NC.device());
  MicroBatchResult result;
  result.num_supervised = static_cast<int64_t>(rows.labels_M.size());
  if (result.num_supervised == 0) return result;

  const bool backward = options.want_gradient && lowest < num_layers;
  auto selected_MC = x_NC.index_select(0, rows.index_M).requires_grad_(backward);
  at::Tensor hidden_MC;
  {
    const c10::AutoGradMode keep_graph(backward);
    hidden_MC = decoder.final_norm(selected_MC);
  }
  CrossEntropyOptions loss_options;
  loss_options.want_gradient = backward;
  loss_options.gradient_scale = options.gradient_scale;
  loss_options.buffer_bytes = options.loss_buffer_bytes.value_or(default_loss_buffer_bytes(hidden_MC.is_cpu()));
  auto loss = options.weights ? linear_cross_entropy(hidden_MC.detach(), options.weights->head(), rows.labels_M, rows.weights_M, loss_options)
                              : linear_cross_entropy(hidden_MC.detach(), decoder.head(), rows.labels_M, rows.weights_M, loss_options);
  result.weighted_loss = loss.weighted_loss;
  for (const auto correct : loss.correct_M) result.num_correct += correct;
  result.losses_M = std::move(loss.losses_M);
  if (!backward) return result;

  const auto gradient_MC = torch::autograd::grad({hidden_MC}, {selected_MC}, {loss.gradient_MC})[0];
  auto gradient_NC = at::zeros_like(x_NC);
  gradient_NC.index_copy_(0, rows.index_M, gradient_MC);
  for (int64_t layer = num_layers - 1; layer >= lowest; --layer) {
    if (options.weights) options.weights->use_layer(layer);
    backward_layer(decoder, *adapters, batch, layer, std::move(records[layer]), gradient_NC);
  }
  return result;
}

}  // namespace graft
