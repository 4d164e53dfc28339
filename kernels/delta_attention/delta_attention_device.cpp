#include "kernels/delta_attention/delta_attention_device.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/functions/utils.h>

#include "kernels/common/check_tensor.h"
#include "kernels/delta_attention/delta_chunks.h"
#include "kernels/device_launch/device_launch.h"
#include "kernels/device_launch/row_type.h"
#include "kernels/device_launch/uploaded.h"

namespace graft {
namespace {

using at::Tensor;

void check_options(const DeltaAttentionInputs& inputs, const DeltaAttentionOptions& options) {
  const auto expect = [&](const char* argument, const Tensor& tensor, std::initializer_list<at::ScalarType> types, at::IntArrayRef sizes) {
    check_tensor("delta_attention", argument, tensor, inputs.qkv_NC.device(), types, sizes);
  };
  const auto type = inputs.qkv_NC.scalar_type();
  expect("the convolution", options.convolution_CK, {at::kFloat}, {options.channels(), -1});
  expect("the decays' rates", options.decay_rate_H, {at::kFloat}, {options.num_value_heads});
  expect("the decays' biases", options.decay_bias_A, {at::kFloat}, {-1});
  expect("the norm's weight", options.norm_weight_V, {at::kFloat}, {options.value_size});
  expect("a", inputs.a_NA, {type}, {-1, -1});
  expect("b", inputs.b_NH, {type}, {-1, -1});
  expect("z", inputs.z_NV, {type}, {-1, -1});
}

// What both passes tell the kernels of one batch.
struct KernelDelta {
  DeltaAttentionInputs inputs;
  DeltaAttentionOptions options;
  int64_t size = 0, num_chunks = 0;
  int num_documents = 0;
  Tensor chunks, first_chunks;   // int32

  KernelDelta(const DeltaAttentionInputs& of, const DeltaAttentionOptions& with, std::span<const int32_t> document_offsets) : options(with) {
    const auto stored = [](const Tensor& x) { return for_kernels(x.detach()); };
    inputs = {stored(of.qkv_NC), stored(of.a_NA), stored(of.b_NH), stored(of.z_NV)};
    for (auto* table : {&options.convolution_CK, &options.decay_rate_H, &options.decay_bias_A, &options.norm_weight_V}) *table = for_kernels(*table);
    size = cuda::delta_size(static_cast<int>(options.key_size), static_cast<int>(options.value_size));
    const auto cut = delta_chunks(document_offsets, cuda::delta_chunk_tokens(inputs.qkv_NC.scalar_type() == at::kFloat, channel_decay()));
    num_chunks = static_cast<int64_t>(cut.chunks.size());
    num_documents = cut.num_documents();
    chunks = uploaded(std::span<const cuda::DeltaChunk>(cut.chunks), inputs.qkv_NC);
    first_chunks = uploaded(std::span<const int32_t>(cut.first_chunks), inputs.qkv_NC);
  }

  bool channel_decay() const { return options.decay_bias_A.numel() != options.num_value_heads; }
  Tensor rows(int64_t heads) const { return at::empty({inputs.qkv_NC.size(0), heads, size}, inputs.qkv_NC.options()); }
  Tensor floats(at::IntArrayRef sizes) const { return at::empty(sizes, inputs.qkv_NC.options().dtype(at::kFloat)); }
  Tensor empty_states() const { return floats({num_chunks, options.num_value_heads, size, size}); }

  // Memory that a pass has for itself.
  struct Scratch {
    Tensor queries, keys, values, solved_keys, ended_keys, chunk_decays;
    explicit Scratch(const KernelDelta& of)
        : queries(of.rows(of.options.num_key_heads)), keys(of.rows(of.options.num_key_heads)), values(of.rows(of.options.num_value_heads)), solved_keys(of.rows(of.options.num_value_heads)),
          ended_keys(of.rows(of.options.num_value_heads)), chunk_decays(of.floats({of.num_chunks, of.options.num_value_heads, of.channel_decay() ? of.size : 1})) {}
  };

  cuda::DeltaProblem problem(Scratch& scratch) const {
    const auto& o = options;
    return {row_type(inputs.qkv_NC), inputs.qkv_NC.size(0), static_cast<int>(o.num_key_heads), static_cast<int>(o.num_value_heads), static_cast<int>(o.key_size), static_cast<int>(o.value_size),
            static_cast<int>(o.convolution_CK.size(1)), o.tiled_value_heads, channel_decay(), o.gate == DeltaAttentionOptions::Gate::kSilu, static_cast<float>(o.norm_epsilon),
            inputs.qkv_NC.const_data_ptr(), inputs.a_NA.const_data_ptr(), inputs.b_NH.const_data_ptr(), inputs.z_NV.const_data_ptr(), o.convolution_CK.const_data_ptr<float>(),
            o.decay_rate_H.const_data_ptr<float>(), o.decay_bias_A.const_data_ptr<float>(), o.norm_weight_V.const_data_ptr<float>(), static_cast<const cuda::DeltaChunk*>(chunks.const_data_ptr()),
            static_cast<int>(num_chunks), first_chunks.const_data_ptr<int32_t>(), num_documents, scratch.queries.data_ptr(), scratch.keys.data_ptr(), scratch.values.data_ptr(),
            scratch.solved_keys.data_ptr(), scratch.ended_keys.data_ptr(), scratch.chunk_decays.data_ptr<float>()};
  }

  Tensor forward(Tensor& states) const {
    Scratch scratch(*this);
    auto out = at::empty_like(inputs.z_NV);
    launch_on(inputs.qkv_NC, "delta attention", cuda::DeltaAttentionForward{problem(scratch), states.data_ptr<float>(), out.data_ptr()});
    return out;
  }

  torch::autograd::variable_list backward(const Tensor& states, const Tensor& dout) const {
    Scratch scratch(*this);
    auto dstates = at::empty_like(states), doutput = at::empty_like(scratch.values), dvalues = at::empty_like(scratch.values), dqueries = at::empty_like(scratch.values),
         dkeys = at::empty_like(scratch.values);
    auto dqkv = at::empty_like(inputs.qkv_NC), da = at::empty_like(inputs.a_NA), db = at::empty_like(inputs.b_NH), dz = at::empty_like(inputs.z_NV);
    launch_on(inputs.qkv_NC, "delta attention backward",
              cuda::DeltaAttentionBackward{problem(scratch), states.const_data_ptr<float>(), dout.const_data_ptr(), dstates.data_ptr<float>(), doutput.data_ptr(), dvalues.data_ptr(), dqueries.data_ptr(),
                                           dkeys.data_ptr(), dqkv.data_ptr(), da.data_ptr(), db.data_ptr(), dz.data_ptr()});
    return {dqkv, da, db, dz};
  }
};

struct KernelDeltaBackward : torch::autograd::Node {
  std::shared_ptr<const KernelDelta> delta;
  Tensor states;

  std::string name() const override { return "KernelDeltaBackward"; }
  void release_variables() override {
    delta.reset();
    states = Tensor();
  }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    if (!gradients[0].defined()) return {Tensor(), Tensor(), Tensor(), Tensor()};
    return delta->backward(states, for_kernels(gradients[0]));
  }
};

}  // namespace

bool delta_attention_has_kernels(const DeltaAttentionInputs& inputs, const DeltaAttentionOptions& options) {
  const auto type = inputs.qkv_NC.scalar_type();
  if (type != at::kFloat && type != at::kBFloat16) return false;
  const auto whole = [&](int64_t size) { return size >= 1 && size <= cuda::kMostDeltaSize && size * static_cast<int64_t>(inputs.qkv_NC.element_size()) % 16 == 0; };
  return whole(options.key_size) && whole(options.value_size) && options.convolution_CK.size(1) >= 1 && options.convolution_CK.size(1) <= cuda::kMostDeltaTaps;
}

Tensor delta_attention_by_kernels(const DeltaAttentionInputs& inputs, const DeltaAttentionOptions& options, std::span<const int32_t> document_offsets) {
  check_options(inputs, options);
  const auto delta = std::make_shared<const KernelDelta>(inputs, options, document_offsets);
  auto states = delta->empty_states();
  auto out = delta->forward(states);
  if (torch::autograd::compute_requires_grad(inputs.qkv_NC, inputs.a_NA, inputs.b_NH, inputs.z_NV)) {
    auto node = std::make_shared<KernelDeltaBackward>();
    node->set_next_edges(torch::autograd::collect_next_edges(inputs.qkv_NC, inputs.a_NA, inputs.b_NH, inputs.z_NV));
    node->delta = delta;
    node->states = states;
    torch::autograd::create_gradient_edge(out, node);
  }
  return out;
}

}  // namespace graft
