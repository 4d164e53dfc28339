"""GlmMoeDsaForCausalLM (GLM-5): DeepSeek V3.2 with neighbouring rotary pairs in the indexer; a layer may see the keys that the layer before it saw."""
from case import Case, Layout
from expert_cases import EXPERTS, LATENT, lora

# Rows and documents are longer than index_topk; two layers share what the first one chose.
SHARED = {
    "architectures": ["GlmMoeDsaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "dtype": "float32", "eos_token_id": [1, 2], "ep_size": 1,
    "first_k_dense_replace": 1, "head_dim": 192, "hidden_act": "silu", "hidden_size": 48, "index_head_dim": 64, "index_n_heads": 16, "index_share_for_mtp_iteration": True,
    "index_skip_topk_offset": 3, "index_topk": 6, "index_topk_freq": 4, "index_topk_pattern": None, "indexer_rope_interleave": True,
    "indexer_types": ["full", "shared", "shared", "full"], "initializer_range": 0.02, "intermediate_size": 88, "kv_lora_rank": 24, "max_position_embeddings": 128,
    "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"], "model_type": "glm_moe_dsa", "moe_intermediate_size": 24, "moe_layer_freq": 1, "moe_router_dtype": "float32",
    "n_group": 1, "n_routed_experts": 6, "n_shared_experts": 1, "norm_topk_prob": True, "num_attention_heads": 5, "num_experts_per_tok": 2, "num_hidden_layers": 4,
    "num_key_value_heads": 5, "num_nextn_predict_layers": 1, "pad_token_id": 1, "pretraining_tp": 1, "q_lora_rank": 20, "qk_head_dim": 50, "qk_nope_head_dim": 18,
    "qk_rope_head_dim": 32, "rms_norm_eps": 1e-6, "rope_interleave": True, "rope_parameters": {"rope_theta": 8000000, "rope_type": "default"}, "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid", "tie_word_embeddings": False, "topk_group": 1, "topk_method": "noaux_tc", "use_cache": True, "v_head_dim": 24, "vocab_size": 101,
}
# Everything is seen. Which layers share is said by a pattern, or by their frequency.
DENSE = {key: value for key, value in SHARED.items() if key not in ("indexer_types", "mlp_layer_types", "head_dim", "qk_head_dim")} | {
    "hidden_size": 80, "index_head_dim": 23, "index_n_heads": 3, "index_topk": 2048, "index_topk_pattern": "FSF", "intermediate_size": 136, "moe_intermediate_size": 56,
    "n_group": 2, "n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 3, "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 4,
    "q_lora_rank": 28, "kv_lora_rank": 32, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 17, "rms_norm_eps": 1e-3, "vocab_size": 131,
}
FURTHER = Layout(surplus=tuple(f"model.layers.4.{name}.weight" for name in ("eh_proj", "enorm", "self_attn.indexer.wk")))   # predict further tokens: skipped

CASES = [
    Case("glm_moe_dsa_shared", SHARED, lora=lora("mlp", "mlp.shared_experts", attention=LATENT), gguf_lora=False),
    Case("glm_moe_dsa_dense", DENSE, sharded=True, gguf=False, lora=lora("mlp", attention=LATENT, use_rslora=True, r=3)),
    # Layers 0 and 2 have an indexer: every second one from the first on.
    Case("glm_moe_dsa_frequency", DENSE | {"index_topk": 5, "index_n_heads": 17, "index_topk_pattern": None, "index_topk_freq": 2, "index_skip_topk_offset": 1}, gguf=False,
         lora={"target_modules": LATENT}),
    Case("glm_moe_dsa_further", SHARED | {"indexer_types": ["full"] * 4, "index_topk": 11}, layout=FURTHER, lora={"target_modules": ["o_proj"], "target_parameters": EXPERTS}),
]
