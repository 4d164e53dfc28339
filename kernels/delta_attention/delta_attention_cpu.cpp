// The CPU path: one task is a key head of a document with all value heads that read it. Heads are taken apart into float32 rows (convolution and norms on the way),
// go through the recurrence, and come back normed and gated.
#include <algorithm>
#include <cmath>

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include "kernels/common/error.h"
#include "kernels/common/operator_path.h"
#include "kernels/delta_attention/delta_attention.h"
#include "kernels/delta_attention/delta_attention_device.h"
#include "kernels/delta_attention/delta_heads.h"
#include "kernels/delta_attention/delta_recurrence.h"
#include "kernels/device_launch/device_launch.h"
#include "kernels/elementwise/typed_rows.h"
#include "kernels/scratch/scratch.h"
#include "kernels/tasks/for_each_task.h"

namespace graft {
namespace {

using at::Tensor;
using Options = DeltaAttentionOptions;
using namespace delta_heads;

template <typename Element>
struct Pointers {
  Element *qkv = nullptr, *a = nullptr, *b = nullptr, *z = nullptr;   // row 0 of each
};

template <typename Element>
Pointers<Element> pointers_of(const DeltaAttentionInputs& inputs) {
  const auto data = [](const Tensor& x) { return static_cast<Element*>(x.data_ptr()); };
  return {data(inputs.qkv_NC), data(inputs.a_NA), data(inputs.b_NH), data(inputs.z_NV)};
}

template <typename Element>
float wide(const Element* value) {
  float result;
  rows::to_float(value, 1, &result);
  return result;
}

// One value head of a task: its decays and betas, and what it reads out.
template <typename Element>
struct ValueHead {
  ValueHead(Scratch& scratch, const Options& options, const Pointers<const Element>& stored, const Task& task, int64_t head, const NormedRows& queries, const NormedRows& keys,
            const float* tail)
      : options(options), task(task), head(head), decay_width(options.decay_bias_A.numel() / options.num_value_heads),
        values(scratch, options, task.tokens, 2 * options.num_key_heads * options.key_size + head * options.value_size, options.value_size) {
    values.convolve(scratch, stored.qkv + task.begin * options.channels(), options.channels(), tail);
    const int64_t tokens = task.tokens, width = options.decay_bias_A.numel();
    decays = scratch.floats(tokens * decay_width);
    betas = scratch.floats(tokens);
    output = scratch.floats(tokens * options.value_size);
    const float rate = options.decay_rate_H.const_data_ptr<float>()[head];
    const float* bias = options.decay_bias_A.const_data_ptr<float>() + head * decay_width;
    for (int64_t t = 0; t < tokens; ++t) {
      betas[t] = sigmoid(wide(stored.b + (task.begin + t) * options.num_value_heads + head));
      float* decay = decays + t * decay_width;
      rows::to_float(stored.a + (task.begin + t) * width + head * decay_width, decay_width, decay);
      for (int64_t c = 0; c < decay_width; ++c) decay[c] = std::exp(-rate * softplus(decay[c] + bias[c]));
    }
    recurrence = {tokens, options.key_size, options.value_size, queries.vectors, keys.vectors, values.values, betas, decays, decay_width == options.key_size};
    block = scratch.floats(recurrence.block_floats());
  }

  int64_t gate_column() const { return head * options.value_size; }

  const Options& options;
  const Task& task;
  int64_t head, decay_width;
  Channels values;
  delta_recurrence::Head recurrence;
  float *decays = nullptr, *betas = nullptr, *output = nullptr, *block = nullptr;
};

template <typename Element>
Tensor forward(const DeltaAttentionInputs& inputs, const Options& options, std::span<const int32_t> offsets, std::span<DeltaState* const> states) {
  const auto stored = pointers_of<const Element>(inputs);
  auto out = at::empty(inputs.z_NV.sizes(), inputs.z_NV.options().requires_grad(false));
  auto* target = static_cast<Element*>(out.data_ptr());
  const int64_t row = options.channels(), size = options.value_size, width = options.num_value_heads * size;
  const float* norm_weight = options.norm_weight_V.const_data_ptr<float>();
  for_each_task(tasks_of(options, offsets), [&](const Task& task) {
    Scratch scratch;
    const float* tail = states.empty() ? nullptr : states[task.document]->tail.data();
    Channels query_channels(scratch, options, task.tokens, task.key_head * options.key_size, options.key_size);
    Channels key_channels(scratch, options, task.tokens, (options.num_key_heads + task.key_head) * options.key_size, options.key_size);
    for (auto* channels : {&query_channels, &key_channels}) channels->convolve(scratch, stored.qkv + task.begin * row, row, tail);
    const NormedRows queries(scratch, query_channels, 1 / std::sqrt(static_cast<float>(options.key_size))), keys(scratch, key_channels, 1);
    for (const auto head : value_heads(options, task.key_head)) {
      Scratch of_head;
      ValueHead<Element> value(of_head, options, stored, task, head, queries, keys, tail);
      float* state = states.empty() ? nullptr : states[task.document]->states.data() + head * options.key_size * size;
      delta_recurrence::forward(value.recurrence, state, value.output, nullptr, value.block);
      float* gate = of_head.floats(size);
      for (int64_t t = 0; t < task.tokens; ++t) {
        float* output = value.output + t * size;
        rows::rms_norm(output, norm_weight, size, static_cast<float>(options.norm_epsilon), output);
        rows::to_float(stored.z + (task.begin + t) * width + value.gate_column(), size, gate);
        for (int64_t c = 0; c < size; ++c) output[c] *= sigmoid(gate[c]) * (options.gate == Options::Gate::kSilu ? gate[c] : 1);
        rows::from_float(output, size, target + (task.begin + t) * width + value.gate_column());
      }
    }
  });
  return out;
}

struct DeltaAttentionBackward : torch::autograd::Node {
  DeltaAttentionInputs inputs;
  Options options;
  std::vector<int32_t> offsets;

  std::string name() const override { return "DeltaAttentionBackward"; }
  void release_variables() override { inputs = {}; }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    if (!gradients[0].defined()) return {Tensor(), Tensor(), Tensor(), Tensor()};
    const auto dout = gradients[0].contiguous();
    return inputs.qkv_NC.scalar_type() == at::kBFloat16 ? backward<uint16_t>(dout) : backward<float>(dout);
  }

  // Of the gated norm: dout's rows of this head give the gradients of z (written) and of what was read out (returned).
  template <typename Element>
  float* norm_backward(Scratch& scratch, const ValueHead<Element>& value, const Element* z, const Element* dout, Element* dz) const {
    const int64_t size = options.value_size, width = options.num_value_heads * size;
    const float* norm_weight = options.norm_weight_V.const_data_ptr<float>();
    float *doutput = scratch.floats(value.task.tokens * size), *gate = scratch.floats(size), *gradient = scratch.floats(size), *normed = scratch.floats(size);
    for (int64_t t = 0; t < value.task.tokens; ++t) {
      const int64_t place = (value.task.begin + t) * width + value.gate_column();
      rows::to_float(z + place, size, gate);
      rows::to_float(dout + place, size, gradient);
      const float inverse = rows::rms_norm(value.output + t * size, norm_weight, size, static_cast<float>(options.norm_epsilon), normed);
      for (int64_t c = 0; c < size; ++c) {
        const float share = sigmoid(gate[c]);
        const bool silu = options.gate == Options::Gate::kSilu;
        const float factor = silu ? gate[c] * share : share, slope = silu ? share * (1 + gate[c] * (1 - share)) : share * (1 - share);
        gate[c] = gradient[c] * normed[c] * slope;
        gradient[c] *= factor;
      }
      rows::from_float(gate, size, dz + place);
      rows::rms_norm_backward(gradient, value.output + t * size, norm_weight, size, inverse, doutput + t * size);
    }
    return doutput;
  }

  template <typename Element>
  torch::autograd::variable_list backward(const Tensor& dout) const {
    const auto stored = pointers_of<const Element>(inputs);
    const DeltaAttentionInputs slopes = {at::empty_like(inputs.qkv_NC), at::empty_like(inputs.a_NA), at::empty_like(inputs.b_NH), at::empty_like(inputs.z_NV)};
    const auto target = pointers_of<Element>(slopes);
    const int64_t row = options.channels(), width = options.decay_bias_A.numel();
    for_each_task(tasks_of(options, offsets), [&](const Task& task) {
      Scratch scratch;
      const int64_t tokens = task.tokens, key_floats = tokens * options.key_size;
      Channels query_channels(scratch, options, tokens, task.key_head * options.key_size, options.key_size);
      Channels key_channels(scratch, options, tokens, (options.num_key_heads + task.key_head) * options.key_size, options.key_size);
      for (auto* channels : {&query_channels, &key_channels}) channels->convolve(scratch, stored.qkv + task.begin * row, row, nullptr);
      const NormedRows queries(scratch, query_channels, 1 / std::sqrt(static_cast<float>(options.key_size))), keys(scratch, key_channels, 1);
      float *dqueries = zeros(scratch, key_floats), *dkeys = zeros(scratch, key_floats);
      for (const auto head : value_heads(options, task.key_head)) {
        Scratch of_head;
        ValueHead<Element> value(of_head, options, stored, task, head, queries, keys, nullptr);
        const int64_t decay_width = value.decay_width;
        float* kept = of_head.floats(value.recurrence.kept_floats());
        delta_recurrence::forward(value.recurrence, nullptr, value.output, kept, value.block);
        const float* doutput = norm_backward<Element>(of_head, value, stored.z, static_cast<const Element*>(dout.const_data_ptr()), target.z);
        float *dvalues = zeros(of_head, tokens * options.value_size), *dbetas = zeros(of_head, tokens), *dlogs = zeros(of_head, tokens * decay_width);
        delta_recurrence::backward(value.recurrence, kept, doutput, {dqueries, dkeys, dvalues, dbetas, dlogs},
                                   of_head.floats((delta_recurrence::kChunk + 2) * value.recurrence.block_floats()));
        value.values.convolve_backward(of_head, dvalues, target.qkv + task.begin * row, row);
        const float rate = options.decay_rate_H.const_data_ptr<float>()[head];
        const float* bias = options.decay_bias_A.const_data_ptr<float>() + head * decay_width;
        float* raised = of_head.floats(decay_width);
        for (int64_t t = 0; t < tokens; ++t) {
          const int64_t token = task.begin + t;
          const float dbeta = dbetas[t] * value.betas[t] * (1 - value.betas[t]);
          rows::from_float(&dbeta, 1, target.b + token * options.num_value_heads + head);
          rows::to_float(stored.a + token * width + head * decay_width, decay_width, raised);
          for (int64_t c = 0; c < decay_width; ++c) raised[c] = -rate * sigmoid(raised[c] + bias[c]) * dlogs[t * decay_width + c];
          rows::from_float(raised, decay_width, target.a + token * width + head * decay_width);
        }
      }
      queries.backward(dqueries);
      keys.backward(dkeys);
      query_channels.convolve_backward(scratch, dqueries, target.qkv + task.begin * row, row);
      key_channels.convolve_backward(scratch, dkeys, target.qkv + task.begin * row, row);
    });
    return {slopes.qkv_NC, slopes.a_NA, slopes.b_NH, slopes.z_NV};
  }
};

void check(const DeltaAttentionInputs& inputs, const Options& options, std::span<const int32_t> offsets) {
  const int64_t tokens = inputs.qkv_NC.size(0), heads = options.num_value_heads;
  if (options.num_key_heads < 1 || heads < 1 || heads % options.num_key_heads != 0) {
    fail("kernels", "delta_attention: expected value heads in a multiple of the key heads, got {} and {}", heads, options.num_key_heads);
  }
  const int64_t decays = options.decay_bias_A.numel();
  if (decays != heads && decays != heads * options.key_size) {
    fail("kernels", "delta_attention: expected {} decay biases, or {}, one a key channel, got {}", heads, heads * options.key_size, decays);
  }
  const auto expect = [&](const char* name, const Tensor& x, int64_t rows, int64_t columns) {
    if (x.dim() == 2 && x.size(0) == rows && x.size(1) == columns) return;
    fail("kernels", "delta_attention: expected {} [{}, {}], got {} elements", name, rows, columns, x.numel());
  };
  expect("qkv", inputs.qkv_NC, tokens, options.channels());
  expect("a", inputs.a_NA, tokens, decays);
  expect("b", inputs.b_NH, tokens, heads);
  expect("z", inputs.z_NV, tokens, heads * options.value_size);
  expect("the convolution", options.convolution_CK, options.channels(), options.convolution_CK.size(-1));
  for (const auto* x : {&inputs.a_NA, &inputs.b_NH, &inputs.z_NV}) {
    if (x->scalar_type() != inputs.qkv_NC.scalar_type()) fail("kernels", "delta_attention: expected inputs of one type, got two");
  }
  if (offsets.empty() || offsets.front() != 0 || offsets.back() != tokens || !std::is_sorted(offsets.begin(), offsets.end())) {
    fail("kernels", "delta_attention: expected document offsets that rise from 0 to {}, got others", tokens);
  }
}

DeltaAttentionInputs contiguous(const DeltaAttentionInputs& inputs) {
  return {inputs.qkv_NC.detach().contiguous(), inputs.a_NA.detach().contiguous(), inputs.b_NH.detach().contiguous(), inputs.z_NV.detach().contiguous()};
}

Tensor forward(const DeltaAttentionInputs& stored, const Options& options, std::span<const int32_t> offsets, std::span<DeltaState* const> states) {
  return stored.qkv_NC.scalar_type() == at::kBFloat16 ? forward<uint16_t>(stored, options, offsets, states) : forward<float>(stored, options, offsets, states);
}

}  // namespace

Tensor delta_attention(const DeltaAttentionInputs& inputs, const DeltaAttentionOptions& options, std::span<const int32_t> document_offsets) {
  check(inputs, options, document_offsets);
  if (takes_kernels(inputs.qkv_NC, delta_attention_has_kernels(inputs, options))) return delta_attention_by_kernels(inputs, options, document_offsets);
  if (!takes_fast_path(inputs.qkv_NC)) return delta_attention_reference(inputs, options, document_offsets);
  const auto stored = contiguous(inputs);
  auto out = forward(stored, options, document_offsets, {});
  if (torch::autograd::compute_requires_grad(inputs.qkv_NC, inputs.a_NA, inputs.b_NH, inputs.z_NV)) {
    auto node = std::make_shared<DeltaAttentionBackward>();
    node->set_next_edges(torch::autograd::collect_next_edges(inputs.qkv_NC, inputs.a_NA, inputs.b_NH, inputs.z_NV));
    node->inputs = stored;
    node->options = options;
    node->offsets.assign(document_offsets.begin(), document_offsets.end());
    torch::autograd::create_gradient_edge(out, node);
  }
  return out;
}

Tensor cached_delta_attention(const DeltaAttentionInputs& inputs, const DeltaAttentionOptions& options, std::span<const int32_t> document_offsets,
                              std::span<DeltaState* const> states) {
  check(inputs, options, document_offsets);
  TORCH_INTERNAL_ASSERT(inputs.qkv_NC.is_cpu(), "delta attention with a state runs on the CPU so far");
  const auto stored = contiguous(inputs);
  const int64_t row = options.channels(), before = options.convolution_CK.size(1) - 1;
  for (auto* state : states) {
    state->tail.resize(static_cast<size_t>(before * row));   // zeros in a new state
    state->states.resize(static_cast<size_t>(options.num_value_heads * options.key_size * options.value_size));
  }
  auto out = forward(stored, options, document_offsets, states);
  visit_elements(stored.qkv_NC, [&](const auto* data) {
    for (size_t d = 0; d + 1 < document_offsets.size(); ++d) {
      const int64_t begin = document_offsets[d], tokens = document_offsets[d + 1] - begin, taken = std::min(tokens, before);
      auto& tail = states[d]->tail;
      states[d]->length += tokens;
      std::copy(tail.begin() + taken * row, tail.end(), tail.begin());
      for (int64_t t = 0; t < taken; ++t) rows::to_float(data + (begin + tokens - taken + t) * row, row, tail.data() + (before - taken + t) * row);
    }
  });
  return out;
}

}  // namespace graft
