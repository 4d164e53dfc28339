"""DeepseekV32ForCausalLM: DeepSeek V3 with an indexer (rotary pairs half a head apart) that chooses which keys a token sees."""
from case import Case, Layout
from expert_cases import EXPERTS, LATENT, lora

YARN = {"beta_fast": 32, "beta_slow": 1, "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 32, "type": "yarn"}
# Rows and documents are longer than index_topk.
SPARSE = {
    "architectures": ["DeepseekV32ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1,
    "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 48, "index_head_dim": 64, "index_n_heads": 16, "index_topk": 6, "initializer_range": 0.02,
    "intermediate_size": 88, "kv_lora_rank": 24, "max_position_embeddings": 128, "model_type": "deepseek_v32", "moe_intermediate_size": 24, "moe_layer_freq": 1, "n_group": 4,
    "n_routed_experts": 8, "n_shared_experts": 1, "norm_topk_prob": True, "num_attention_heads": 5, "num_experts_per_tok": 3, "num_hidden_layers": 3, "num_key_value_heads": 5,
    "num_nextn_predict_layers": 1, "q_lora_rank": 20, "qk_nope_head_dim": 13, "qk_rope_head_dim": 32, "rms_norm_eps": 1e-6, "rope_scaling": YARN, "rope_theta": 10000.0,
    "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "tie_word_embeddings": False, "topk_group": 2, "topk_method": "noaux_tc", "torch_dtype": "float32",
    "use_cache": True, "v_head_dim": 10, "vocab_size": 101,
}
# Everything is seen: index_topk is what the longest document has. Odd sizes of the indexer, biases.
DENSE = SPARSE | {
    "attention_bias": True, "hidden_size": 80, "index_head_dim": 23, "index_n_heads": 3, "index_topk": 23, "intermediate_size": 136, "moe_intermediate_size": 56, "n_group": 1,
    "topk_group": 1, "n_routed_experts": 6, "n_shared_experts": 2, "num_experts_per_tok": 2, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
    "q_lora_rank": 28, "kv_lora_rank": 32, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 28, "rms_norm_eps": 1e-3, "rope_scaling": None, "rope_theta": 50000.0,
    "tie_word_embeddings": True, "vocab_size": 131,
}
ODD = {key: value for key, value in DENSE.items() if key != "first_k_dense_replace"} | {"index_topk": 4, "index_n_heads": 17, "mlp_layer_types": ["sparse", "dense"]}
FURTHER = Layout(surplus=tuple(f"model.layers.3.{name}.weight" for name in ("eh_proj", "enorm", "self_attn.indexer.wk")))   # predict further tokens: skipped

CASES = [
    Case("deepseek_v32_sparse", SPARSE, lora=lora("mlp", "mlp.shared_experts", attention=LATENT), gguf_lora=False),
    Case("deepseek_v32_dense", DENSE, gguf=False, lora=lora("mlp", attention=LATENT, use_rslora=True, r=3)),
    # Adapters where llama.cpp adds them to the product. A part of a head does not turn; no head of the indexer is as large as the attention's.
    Case("deepseek_v32_further", SPARSE | {"rope_scaling": None, "index_topk": 11}, layout=FURTHER, lora={"target_modules": ["o_proj"], "target_parameters": EXPERTS}),
    Case("deepseek_v32_odd", ODD, sharded=True, gguf=False, lora={"target_modules": LATENT}),
]
