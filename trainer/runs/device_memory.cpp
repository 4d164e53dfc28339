#include "trainer/runs/device_memory.h"

#include <algorithm>

#include "kernels/attention/attention.cuh"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace graft {

DeviceMemoryEstimate estimate_device_memory(const PreparedRun& run, Recompute recompute) {
  const auto& spec = run.decoder->spec();
  const auto heads = spec.attention_layer().heads();
  const auto compute = scalar_type(run.decoder->compute());
  const int64_t element = static_cast<int64_t>(c10::elementSize(compute)), layers = static_cast<int64_t>(spec.layers.size());
  const int64_t query = heads.num_heads * heads.size, key = heads.num_kv_heads * heads.size;
  const int64_t hidden = spec.hidden_size, width = widest_channel(spec), rank = run.recipe.adapter.rank;
  const int64_t tokens = largest_micro_batch(run), document = std::min(tokens, run.dataset.train.statistics.longest);
  DeviceMemoryEstimate estimate;
  int64_t largest_weight = 0;
  for (const auto& weight : run.decoder->weights()) {
    const bool is_embedding = weight.rule->ours == "embedding.weight", is_head = weight.rule->ours == "head.weight" || (is_embedding && spec.tied_head);
    if (is_embedding && !is_head) continue;   // its rows are decoded on the CPU
    const auto elements = weight.tensor->num_elements();
    estimate.base += FrozenWeight::device_bytes(weight.tensor->type, elements, compute, is_head ? DeviceForm::kDecoded : DeviceForm::kStored);
    largest_weight = std::max(largest_weight, elements * element);
  }
  if (run.served) estimate.base += run.served->num_bytes();   // in blocks there too
  estimate.adapters = run.adapters->num_parameters() * (4 + 8 + 2 * 4);   // value, gradient in float64, two moments
  // Kept for backward, in the compute type: x before both norms, queries, keys and values as projected and as turned, the attention's result, gate and up, and the
  // adapters' products xA; a log-sum a head. Scores only where no kernel takes heads of this size.
  const bool by_kernels = cuda::attention_head_size(static_cast<int>(heads.size), static_cast<int>(heads.size)) != 0;
  const int64_t per_token_layer = element * (2 * hidden + 3 * query + 3 * key + latent_width(spec) + 2 * width + 7 * rank) + 4 * heads.num_heads;
  const int64_t scores = by_kernels ? 0 : 4 * heads.num_heads * tokens * document;
  const int64_t layer = tokens * per_token_layer + scores;
  estimate.activations = recompute == Recompute::kNone ? layers * layer : layers * tokens * element * hidden + layer;
  estimate.activations += selected_key_bytes(run, tokens, recompute);
  if (run.hidden_matching) estimate.activations += run.hidden_matching->num_bytes(tokens);
  // Beside them one at a time: gradients of a layer's widest tensors; a block of logits in float32, its slope and in the compute type; the update's temporaries; a
  // weight in the compute type, where it is stored in another.
  const int64_t gradients = tokens * element * (4 * width + 2 * hidden + query) + 3 * scores;
  const int64_t logits = default_loss_buffer_bytes(false) * 5 / 2, update = run.adapters->num_parameters() * 4 * 4;
  estimate.scratch = std::max({gradients, logits, update}) + largest_weight;
  estimate.program = int64_t{1} << 30;   // context, kernels, cuBLAS workspaces
  return estimate;
}

int64_t available_bytes(const CudaDevice& gpu) { return gpu.free_bytes < 0 ? gpu.total_bytes : gpu.free_bytes; }

}  // namespace graft
