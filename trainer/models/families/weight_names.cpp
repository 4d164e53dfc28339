#include "trainer/models/families/weight_names.h"

#include <fmt/format.h>

#include "trainer/models/families/map_builder.h"

namespace graft {
namespace {

void add_block(MapBuilder& builder, size_t index, int64_t hidden, const AttentionSpec& attention) {
  const int64_t query_size = attention.num_heads * attention.head_size, key_size = attention.num_kv_heads * attention.head_size;
  const int64_t query_rows = attention.output_gate ? 2 * query_size : query_size;
  if (attention.fused) {
    builder.layer(index, "attention.qkv", {query_size + 2 * key_size, hidden}, attention.input_bias);
  } else {
    builder.layer(index, "attention.query", {query_rows, hidden}, attention.input_bias);
    builder.layer(index, "attention.key", {key_size, hidden}, attention.input_bias);
    builder.layer(index, "attention.value", {key_size, hidden}, attention.input_bias);
  }
  builder.layer(index, "attention.output", {hidden, query_size}, attention.output_bias);
  if (attention.sinks) builder.vector(index, "attention.sinks", attention.num_heads);
  if (!attention.head_norm) return;
  const bool whole = attention.head_norm_place == AttentionSpec::HeadNorm::kWholeWidth;
  builder.layer(index, "attention.query_norm", {whole ? query_size : attention.head_size});
  builder.layer(index, "attention.key_norm", {whole ? key_size : attention.head_size});
}

void add_block(MapBuilder& builder, size_t index, int64_t hidden, const LatentAttentionSpec& attention) {
  const int64_t query_size = attention.num_heads * attention.query_size();
  if (attention.query_rank > 0) {
    builder.layer(index, "attention.query_a", {attention.query_rank, hidden}, attention.bias);
    builder.layer(index, "attention.query_a_norm", {attention.query_rank});
    builder.layer(index, "attention.query_b", {query_size, attention.query_rank});
  } else {
    builder.layer(index, "attention.query", {query_size, hidden});
  }
  builder.layer(index, "attention.key_value_a", {attention.key_value_rank + attention.rotary_size, hidden}, attention.bias);
  builder.layer(index, "attention.key_value_a_norm", {attention.key_value_rank});
  builder.latent_heads(index, attention);
  builder.layer(index, "attention.output", {hidden, attention.num_heads * attention.value_size}, attention.bias);
  if (!attention.indexer || attention.indexer->shared) return;
  const auto& indexer = *attention.indexer;
  builder.layer(index, "indexer.query", {indexer.num_heads * indexer.head_size, attention.query_rank});
  builder.layer(index, "indexer.key", {indexer.head_size, hidden});
  builder.layer(index, "indexer.key_norm", {indexer.head_size}, true);
  builder.layer(index, "indexer.weights", {indexer.num_heads, hidden});
}

// [queries | keys | values], whose values are a part of their own: some files hold their heads in another order.
void add_mixed(MapBuilder& builder, size_t index, const DeltaAttentionSpec& delta, const std::string& part, int64_t columns, bool is_convolution) {
  const auto& name = builder.name(part);
  const int64_t keys = 2 * delta.key_width(), rows = keys + delta.value_width();
  builder.slice(index, part + ".query_key", {keys, columns}, {name.hub, rows, 0}, {name.gguf, rows, 0});
  builder.slice(index, part + ".value", {delta.value_width(), columns}, {name.hub, rows, keys}, {name.gguf, rows, keys});
  if (!is_convolution) return;
  for (auto* rule : {&builder.map.rules.end()[-2], &builder.map.rules.end()[-1]}) rule->hub_form.whole = {rows, 1, columns};
}

void add_block(MapBuilder& builder, size_t index, int64_t hidden, const DeltaAttentionSpec& delta) {
  using Form = DeltaAttentionSpec::Form;
  const int64_t keys = delta.key_width(), values = delta.value_width(), heads = delta.num_value_heads, rank = delta.key_size;
  switch (delta.form) {
    case Form::kByKeyHead: {
      const auto& whole = builder.name("delta.query_key_value_gate");
      const auto& gate = builder.name("delta.gate");
      const int64_t of_head = delta.values_per_key() * delta.value_size, mixed = 2 * keys + values;
      for (int64_t head = 0; head < delta.num_key_heads; ++head) {
        int64_t row = head * 2 * (delta.key_size + of_head);
        const auto push = [&](const char* part, int64_t rows, const MapBuilder::Place& gguf) {
          builder.slice(index, fmt::format("delta.query_key_value_gate.{}.{}", head, part), {rows, hidden}, {whole.hub, 2 * (keys + values), row}, gguf);
          row += rows;
        };
        push("query", delta.key_size, {whole.gguf, mixed, head * delta.key_size});
        push("key", delta.key_size, {whole.gguf, mixed, keys + head * delta.key_size});
        push("value", of_head, {whole.gguf, mixed, 2 * keys + head * of_head});
        push("gate", of_head, {gate.gguf, values, head * of_head});
      }
      builder.layer(index, "delta.beta_decay", {2 * heads, hidden});
      break;
    }
    case Form::kByPart:
      add_mixed(builder, index, delta, "delta.query_key_value", hidden, false);
      builder.layer(index, "delta.gate", {values, hidden});
      builder.layer(index, "delta.beta", {heads, hidden});
      builder.layer(index, "delta.decay", {heads, hidden});
      break;
    case Form::kLowRank:
      builder.layer(index, "delta.query", {keys, hidden});
      builder.layer(index, "delta.key", {keys, hidden});
      builder.layer(index, "delta.value", {values, hidden});
      builder.layer(index, "delta.decay_a", {rank, hidden});
      builder.layer(index, "delta.decay_b", {keys, rank});
      builder.layer(index, "delta.beta", {heads, hidden});
      builder.layer(index, "delta.gate_a", {rank, hidden});
      builder.layer(index, "delta.gate_b", {values, rank});
  }
  if (delta.form == Form::kLowRank) {
    for (const auto& [part, rows] : {std::pair{"query", keys}, std::pair{"key", keys}, std::pair{"value", values}}) {
      const auto& name = builder.name(fmt::format("delta.convolution.{}", part));
      auto& rule = builder.slice(index, fmt::format("delta.convolution.{}", part), {rows, delta.taps}, {name.hub}, {name.gguf});
      rule.hub_form.whole = {rows, 1, delta.taps};
      rule.gguf_form.whole = {1, rows, 1, delta.taps};
    }
  } else {
    add_mixed(builder, index, delta, "delta.convolution", delta.taps, true);
  }
  builder.vector(index, "delta.decay_rate", heads);
  builder.map.rules.back().gguf_form.minus_exponential = true;
  builder.vector(index, "delta.decay_bias", delta.form == Form::kLowRank ? keys : heads);
  builder.layer(index, "delta.norm", {delta.value_size});
  builder.layer(index, "delta.output", {hidden, values});
}

void add_block(MapBuilder& builder, size_t index, int64_t hidden, const MlpSpec& mlp) {
  if (mlp.gated && mlp.fused) {
    builder.layer(index, "mlp.gate_up", {2 * mlp.width, hidden}, mlp.bias);
  } else {
    if (mlp.gated) builder.layer(index, "mlp.gate", {mlp.width, hidden}, mlp.bias);
    builder.layer(index, "mlp.up", {mlp.width, hidden}, mlp.bias);
  }
  builder.layer(index, "mlp.down", {hidden, mlp.width}, mlp.bias);
}

void add_block(MapBuilder& builder, size_t index, int64_t hidden, const ExpertsSpec& experts) {
  const int64_t count = experts.router.num_experts, width = experts.width;
  builder.layer(index, "router", {count, hidden}, experts.router.bias);
  if (experts.router.selection_bias) builder.vector(index, "router.selection_bias", count);
  for (int64_t expert = 0; expert < count; ++expert) {
    builder.expert(index, "gate", expert, count, {width, hidden}, "experts.gate_up", 2 * width, 0, experts.bias);
    builder.expert(index, "up", expert, count, {width, hidden}, "experts.gate_up", 2 * width, width, experts.bias);
    builder.expert(index, "down", expert, count, {hidden, width}, "experts.all_down", hidden, 0, experts.bias);
  }
  if (experts.shared_width == 0) return;
  builder.layer(index, "shared.gate", {experts.shared_width, hidden});
  builder.layer(index, "shared.up", {experts.shared_width, hidden});
  builder.layer(index, "shared.down", {hidden, experts.shared_width});
  if (experts.shared_gate) builder.layer(index, "shared_gate", {1, hidden});
}

}  // namespace

WeightNames llama_names() {
  WeightNames names;
  names.model = {{"embedding", {"model.embed_tokens", "token_embd"}}, {"final_norm", {"model.norm", "output_norm"}}, {"head", {"lm_head", "output"}}};
  names.layer = {{"mixer_norm", {"input_layernorm", "attn_norm"}},
                 {"attention.query", {"self_attn.q_proj", "attn_q"}},
                 {"attention.key", {"self_attn.k_proj", "attn_k"}},
                 {"attention.value", {"self_attn.v_proj", "attn_v"}},
                 {"attention.output", {"self_attn.o_proj", "attn_output"}},
                 {"attention.query_norm", {"self_attn.q_norm", "attn_q_norm"}},
                 {"attention.key_norm", {"self_attn.k_norm", "attn_k_norm"}},
                 {"attention.query_a", {"self_attn.q_a_proj", "attn_q_a"}},
                 {"attention.query_a_norm", {"self_attn.q_a_layernorm", "attn_q_a_norm"}},
                 {"attention.query_b", {"self_attn.q_b_proj", "attn_q_b"}},
                 {"attention.key_value_a", {"self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"}},
                 {"attention.key_value_a_norm", {"self_attn.kv_a_layernorm", "attn_kv_a_norm"}},
                 {"attention.key_value_b.key", {"self_attn.kv_b_proj", "attn_k_b"}},
                 {"attention.key_value_b.value", {"self_attn.kv_b_proj", "attn_v_b"}},
                 {"delta.query_key_value_gate", {"linear_attn.in_proj_qkvz", "attn_qkv"}},
                 {"delta.beta_decay", {"linear_attn.in_proj_ba", "ssm_ba"}},
                 {"delta.query_key_value", {"linear_attn.in_proj_qkv", "attn_qkv"}},
                 {"delta.gate", {"linear_attn.in_proj_z", "attn_gate"}},
                 {"delta.beta", {"linear_attn.in_proj_b", "ssm_beta"}},
                 {"delta.decay", {"linear_attn.in_proj_a", "ssm_alpha"}},
                 {"delta.convolution", {"linear_attn.conv1d", "ssm_conv1d"}},
                 {"delta.decay_rate", {"linear_attn.A_log", "ssm_a"}},
                 {"delta.decay_bias", {"linear_attn.dt_bias", "ssm_dt.bias"}},
                 {"delta.norm", {"linear_attn.norm", "ssm_norm"}},
                 {"delta.output", {"linear_attn.out_proj", "ssm_out"}},
                 {"indexer.query", {"self_attn.indexer.wq_b", "indexer.attn_q_b"}},
                 {"indexer.key", {"self_attn.indexer.wk", "indexer.attn_k"}},
                 {"indexer.key_norm", {"self_attn.indexer.k_norm", "indexer.k_norm"}},
                 {"indexer.weights", {"self_attn.indexer.weights_proj", "indexer.proj"}},
                 {"channel_norm", {"post_attention_layernorm", "ffn_norm"}},
                 {"mlp.gate", {"mlp.gate_proj", "ffn_gate"}},
                 {"mlp.up", {"mlp.up_proj", "ffn_up"}},
                 {"mlp.gate_up", {"mlp.gate_up_proj", "ffn_up"}},
                 {"mlp.down", {"mlp.down_proj", "ffn_down"}},
                 {"router", {"mlp.gate", "ffn_gate_inp"}},
                 {"router.selection_bias", {"mlp.gate.e_score_correction_bias", "exp_probs_b.bias"}},
                 {"experts.gate", {"mlp.experts.*.gate_proj", "ffn_gate_exps"}},
                 {"experts.up", {"mlp.experts.*.up_proj", "ffn_up_exps"}},
                 {"experts.down", {"mlp.experts.*.down_proj", "ffn_down_exps"}},
                 {"experts.gate_up", {"mlp.experts.gate_up_proj", ""}},
                 {"experts.all_down", {"mlp.experts.down_proj", ""}},
                 {"shared.gate", {"mlp.shared_experts.gate_proj", "ffn_gate_shexp"}},
                 {"shared.up", {"mlp.shared_experts.up_proj", "ffn_up_shexp"}},
                 {"shared.down", {"mlp.shared_experts.down_proj", "ffn_down_shexp"}},
                 {"shared_gate", {"mlp.shared_expert_gate", "ffn_gate_inp_shexp"}}};
  return names;
}

WeightMap weight_map_of(const DecoderSpec& spec, const WeightNames& names) {
  MapBuilder builder(names);
  const int64_t hidden = spec.hidden_size;
  const auto is_layer_norm = [](const NormSpec& norm) { return norm.kind == NormSpec::Kind::kLayer; };
  builder.model("embedding", {spec.vocab_size, hidden});
  if (spec.embedding.learned_positions) builder.model("position_embedding", {spec.max_positions, hidden});
  if (spec.embedding.norm) builder.model("embedding_norm", {hidden}, is_layer_norm(*spec.embedding.norm));
  for (size_t index = 0; index < spec.layers.size(); ++index) {
    const auto& layer = spec.layers[index];
    const auto add_norm = [&](const char* part, const std::optional<NormSpec>& norm) {
      if (norm) builder.layer(index, part, {hidden}, is_layer_norm(*norm));
    };
    const auto add = [&](const auto& block) { add_block(builder, index, hidden, block); };
    add_norm("mixer_norm", layer.mixer_norm);
    std::visit(add, layer.mixer);
    add_norm("mixer_post_norm", layer.mixer_post_norm);
    add_norm("channel_norm", layer.channel_norm);
    std::visit(add, layer.channel);
    add_norm("channel_post_norm", layer.channel_post_norm);
  }
  builder.model("final_norm", {hidden}, is_layer_norm(spec.final_norm));
  if (!spec.tied_head) builder.model("head", {spec.vocab_size, hidden});
  auto map = std::move(builder.map);
  map.ignored = {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight", "*rotary_emb.inv_freq", "*rotary_emb.cos_cached",
                 "*rotary_emb.sin_cached"};
  // A tied checkpoint may still carry a copy of the embedding as head.
  if (spec.tied_head) map.ignored.push_back(names.model.at("head").hub + ".weight");
  return map;
}

void set_gguf_rotary_pairs(const DecoderSpec& spec, WeightMap& map) {
  const auto& attention = spec.layers.at(0).attention();
  for_part(map, "attention.query", [&](WeightRule& rule) { rule.gguf_form = {StoredForm::Rows::kRotaryPairs, attention.num_heads}; });
  for_part(map, "attention.key", [&](WeightRule& rule) { rule.gguf_form = {StoredForm::Rows::kRotaryPairs, attention.num_kv_heads}; });
}

}  // namespace graft
