#include "trainer/steps/micro_batch.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include "trainer/steps/load_balancing.h"

namespace graft {
namespace {

struct LossRows {
  at::Tensor index_M;    // int64
  at::Tensor places_N;   // int64, on a GPU: of a token among the rows, their number where it is none
  std::vector<int32_t> labels_M;   // kUnsupervised where only a teacher is followed
  std::vector<float> weights_M;
};

LossRows loss_rows(const Batch& batch, c10::Device device) {
  LossRows rows;
  const auto index = batch.taught_tokens();
  for (const auto n : index) {
    rows.labels_M.push_back(batch.labels_N[n]);
    if (!batch.weights_N.empty()) rows.weights_M.push_back(batch.weights_N[n]);
  }
  rows.index_M = at::empty({static_cast<int64_t>(index.size())}, at::kLong);
  std::copy(index.begin(), index.end(), rows.index_M.data_ptr<int64_t>());
  if (!device.is_cpu()) {
    auto places_N = at::full({batch.num_tokens()}, static_cast<int64_t>(index.size()), at::kLong);
    for (size_t m = 0; m < index.size(); ++m) places_N.data_ptr<int64_t>()[index[m]] = static_cast<int64_t>(m);
    rows.places_N = places_N.to(device);
  }
  rows.index_M = rows.index_M.to(device);
  return rows;
}

// Rows where they came from in x, zeros elsewhere.
at::Tensor put_back(const at::Tensor& rows_MC, const LossRows& rows, const at::Tensor& x_NC) {
  if (x_NC.is_cpu()) return at::zeros_like(x_NC).index_copy_(0, rows.index_M, rows_MC);
  return at::cat({rows_MC, at::zeros({1, x_NC.size(1)}, x_NC.options())}).index_select(0, rows.places_N);   // on a GPU index_copy_ sorts first
}

// One layer's input (a leaf) and, when its graph is kept, its output and what its router gave.
struct LayerRecord {
  LayerStream input;
  at::Tensor output_NC;
  Routing routing;
};

void backward_layer(const Decoder& decoder, AdapterSet& adapters, const Batch& batch, int64_t layer, LayerRecord record,
                    const LoadBalancing* balancing, at::Tensor& gradient_NC) {
  const c10::AutoGradMode with_gradient(true);
  if (!record.output_NC.defined()) record.output_NC = decoder.run_layer(layer, record.input, batch, nullptr, balancing ? &record.routing : nullptr).x_NC;
  std::vector<at::Tensor> inputs;
  const bool below = record.input.x_NC.requires_grad();
  if (below) inputs.push_back(record.input.x_NC);
  for (const auto* adapter : adapters.adapters_of_layer(layer)) {
    for (const auto& [leaf, offset] : adapter->leaves()) inputs.push_back(leaf);
  }
  std::vector<at::Tensor> outputs = {record.output_NC}, output_gradients = {gradient_NC};
  // A router may stand before everything that is trained here: then nothing comes of its loss.
  if (balancing && record.routing.probabilities_NE.defined() && record.routing.probabilities_NE.requires_grad()) {
    outputs.push_back(record.routing.probabilities_NE);
    output_gradients.push_back(balancing->gradient_E().expand_as(record.routing.probabilities_NE));
  }
  auto gradients = torch::autograd::grad(outputs, inputs, output_gradients, /*retain_graph=*/false, /*create_graph=*/false);
  size_t slot = below ? 1 : 0;
  for (const auto* adapter : adapters.adapters_of_layer(layer)) {
    for (const auto& [leaf, offset] : adapter->leaves()) adapters.gradients.narrow(0, offset, leaf.numel()).add_(gradients[slot++].reshape(-1));
  }
  gradient_NC = below ? gradients[0] : at::Tensor();
}

}  // namespace

MicroBatchResult run_micro_batch(const Decoder& decoder, AdapterSet* adapters, const Batch& rows_batch, const MicroBatchOptions& options) {
  // The load-balancing loss counts every token of every row.
  const Batch batch = options.share_prefix && options.load_balancing == 0 && decoder.may_share_prefix(rows_batch) ? share_prefix(rows_batch) : rows_batch;
  const c10::AutoGradMode no_gradient(false);
  const int64_t num_layers = decoder.num_layers();
  const int64_t lowest = options.want_gradient ? adapters->lowest_layer() : num_layers;
  std::vector<LayerRecord> records(num_layers);
  const bool routes = options.load_balancing > 0 || options.want_routing;
  std::optional<LoadBalancing> balancing;
  if (routes && decoder.spec().experts()) balancing.emplace(decoder.spec().experts()->router);
  LayerStream stream{decoder.embed(batch), {}};
  const auto rows = loss_rows(batch, stream.x_NC.device());
  MicroBatchResult result;
  std::vector<at::Tensor> matching_gradients_MC(num_layers);   // of the loss rows after a layer
  const auto match = [&](int64_t layer) {
    if (!options.hidden_matching || !options.teacher || rows.labels_M.empty() || !options.hidden_matching->has_pair(layer)) return;
    auto loss = options.hidden_matching->loss(layer, stream.x_NC.index_select(0, rows.index_M), options.teacher->states_MC, rows.weights_M,
                                              options.want_gradient ? std::optional(options.hidden_matching_scale) : std::nullopt);
    result.weighted_hidden_state_loss += loss.weighted;
    matching_gradients_MC[layer] = std::move(loss.gradient_MC);
  };
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    if (options.weights) options.weights->use_layer(layer);
    Routing routing;
    if (layer < lowest) {
      stream = decoder.run_layer(layer, stream, batch, nullptr, balancing ? &routing : nullptr);
    } else {
      auto& record = records[layer];
      record.input = {stream.x_NC.detach().requires_grad_(layer > lowest), stream.selected_keys_NB};
      const c10::AutoGradMode keep_graph(options.recompute == Recompute::kNone);
      stream = decoder.run_layer(layer, record.input, batch, nullptr, balancing ? &routing : nullptr);
      if (options.recompute == Recompute::kNone) record.output_NC = stream.x_NC, record.routing = routing;
      stream.x_NC = stream.x_NC.detach();
    }
    if (balancing && routing.chosen_NK.defined()) balancing->add(routing);
    match(layer);
  }
  const auto& x_NC = stream.x_NC;
  result.num_supervised = std::count_if(rows.labels_M.begin(), rows.labels_M.end(), [](int32_t label) { return label != kUnsupervised; });
  if (balancing) {
    result.expert_tokens = balancing->expert_tokens();
    result.load_balancing_loss = balancing->loss();
    balancing->set_weight(options.load_balancing * options.gradient_scale * static_cast<double>(result.num_supervised));
  }
  if (rows.labels_M.empty()) return result;

  const bool backward = options.want_gradient && lowest < num_layers;
  auto selected_MC = x_NC.index_select(0, rows.index_M).requires_grad_(backward);
  at::Tensor hidden_MC;
  {
    const c10::AutoGradMode keep_graph(backward);
    hidden_MC = decoder.final_norm(selected_MC);
  }
  ObjectiveLossOptions loss_options;
  loss_options.want_gradient = backward;
  loss_options.gradient_scale = options.gradient_scale;
  loss_options.divergence_scale = options.divergence_scale;
  loss_options.buffer_bytes = options.loss_buffer_bytes.value_or(default_loss_buffer_bytes(hidden_MC.is_cpu()));
  const auto loss_with = [&](const HeadPieces& head) {
    return objective_loss(hidden_MC.detach(), head, rows.labels_M, rows.weights_M, options.objective, options.teacher, loss_options);
  };
  auto loss = options.weights ? loss_with(options.weights->head()) : loss_with(WholeHead(decoder.head()));
  result.weighted_loss = loss.weighted_loss + result.weighted_hidden_state_loss * (options.hidden_matching_scale / options.gradient_scale);
  result.weighted_cross_entropy = loss.weighted_cross_entropy;
  result.weighted_divergence = loss.weighted_divergence;
  for (const auto correct : loss.correct) result.num_correct += correct;
  result.losses_M = std::move(loss.cross_entropies);
  if (!backward) return result;

  const auto gradient_MC = torch::autograd::grad({hidden_MC}, {selected_MC}, {loss.gradient_MC})[0];
  auto gradient_NC = put_back(gradient_MC, rows, x_NC);
  for (int64_t layer = num_layers - 1; layer >= lowest; --layer) {
    if (options.weights) options.weights->use_layer(layer);
    if (const auto& added_MC = matching_gradients_MC[layer]; added_MC.defined()) gradient_NC = gradient_NC + put_back(added_MC, rows, x_NC);
    backward_layer(decoder, *adapters, batch, layer, std::move(records[layer]), options.load_balancing > 0 && balancing ? &*balancing : nullptr, gradient_NC);
  }
  return result;
}

}  // namespace graft
