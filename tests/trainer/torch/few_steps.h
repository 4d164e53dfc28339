// A few steps of training a tiny model: what tests of an operator's other implementations compare.
#pragma once
#include <vector>

#include "tests/trainer/torch/generation_tiny_model.h"
#include "trainer/optimizers/adamw.h"
#include "trainer/runs/run_state.h"
#include "trainer/steps/micro_batch.h"

namespace graft::test {

inline Batch some_batch(int32_t step, bool dropout) {
  Batch batch;
  for (int32_t r = 0; r < 5; ++r) {
    std::vector<int32_t> tokens = {7, 3, 90, 41, 12, 5};   // rows begin alike: the batch shares its prefix
    for (int32_t i = 0; i < 4 + 3 * r; ++i) tokens.push_back((step * 31 + r * 37 + i * i * 11 + 1) % 250);
    batch.add_document(tokens);
    for (size_t i = 0; i < tokens.size(); ++i) {
      batch.labels_N.push_back(i >= 6 && i + 1 < tokens.size() ? tokens[i + 1] : kUnsupervised);
      batch.weights_N.push_back(r == 2 ? 0.5f : 1.0f);
      batch.row_keys_N.push_back((int64_t{r} << 24) + static_cast<int64_t>(i));
    }
  }
  if (dropout) batch.dropout_seed = 5 + static_cast<uint64_t>(step);
  return batch;
}

struct Setup {
  const char* family;
  ComputeType compute;
  double dropout;
  Recompute recompute;
};

struct Outcome {
  std::vector<double> losses, norms;
  at::Tensor parameters;
};

// device_copies: weights with a copy as a GPU has it, on the CPU.
inline Outcome train(const Setup& setup, int32_t steps, bool device_copies = false) {
  TinyModel model(setup.family);
  model.decoder->set_compute(setup.compute);
  AdapterOptions options;
  options.rank = 4;
  options.alpha = 8;
  options.dropout = setup.dropout;
  AdapterSet adapters(*model.decoder, options, 3);
  if (device_copies) {
    for (auto* linear : model.decoder->linears()) linear->weight.to_device(at::kCPU, scalar_type(setup.compute));
  }
  AdamW optimizer({}, adapters.num_parameters());
  Outcome outcome;
  for (int32_t step = 0; step < steps; ++step) {
    adapters.gradients.zero_();
    MicroBatchOptions step_options;
    step_options.gradient_scale = 1.0 / 50;
    step_options.recompute = setup.recompute;
    outcome.losses.push_back(run_micro_batch(*model.decoder, &adapters, some_batch(step % 2, setup.dropout > 0), step_options).weighted_loss / 50);
    outcome.norms.push_back(optimizer.step(adapters.parameters, adapters.gradients, 0.01));
  }
  outcome.parameters = adapters.parameters.clone();
  return outcome;
}

struct LossAndGradients {
  double loss = 0;
  at::Tensor gradients;   // of every adapter
};

// Of one batch, with adapters that are no longer zero.
inline LossAndGradients loss_and_gradients(const char* family, bool device_copies = false) {
  TinyModel model(family);
  AdapterOptions options;
  options.rank = 4;
  options.alpha = 8;
  AdapterSet adapters(*model.decoder, options, 3);
  for (int64_t i = 0; i < adapters.num_parameters(); ++i) adapters.parameters.data_ptr<float>()[i] = static_cast<float>(0.2 * counter_uniform(5, 1, static_cast<uint64_t>(i)) - 0.1);
  if (device_copies) {
    for (auto* linear : model.decoder->linears()) linear->weight.to_device(at::kCPU, at::kFloat);
  }
  adapters.gradients.zero_();
  MicroBatchOptions step_options;
  step_options.gradient_scale = 1.0 / 50;
  LossAndGradients results;
  results.loss = run_micro_batch(*model.decoder, &adapters, some_batch(0, false), step_options).weighted_loss / 50;
  results.gradients = adapters.gradients.clone();
  return results;
}

}  // namespace graft::test
