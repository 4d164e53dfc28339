"""DeepseekV2ForCausalLM: latent attention, softmax router without renormalised weights; V2 chooses groups by their best expert, V2-Lite has no groups and no latent of queries."""
from case import Case
from expert_cases import LATENT, lora

YARN = {"beta_fast": 32, "beta_slow": 1, "factor": 8.0, "mscale": 0.707, "mscale_all_dim": 0.707, "original_max_position_embeddings": 16, "type": "yarn"}
SMALL = {
    "architectures": ["DeepseekV2ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "aux_loss_alpha": 0.001, "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1,
    "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 48, "initializer_range": 0.02, "intermediate_size": 88, "kv_lora_rank": 24, "max_position_embeddings": 128,
    "model_type": "deepseek_v2", "moe_intermediate_size": 24, "moe_layer_freq": 1, "n_group": 4, "n_routed_experts": 12, "n_shared_experts": 2, "norm_topk_prob": False,
    "num_attention_heads": 6, "num_experts_per_tok": 3, "num_hidden_layers": 3, "num_key_value_heads": 6, "pretraining_tp": 1, "q_lora_rank": 20, "qk_nope_head_dim": 14,
    "qk_rope_head_dim": 6, "rms_norm_eps": 1e-3, "rope_scaling": YARN, "rope_theta": 10000.0, "routed_scaling_factor": 16.0, "scoring_func": "softmax", "seq_aux": True,
    "tie_word_embeddings": False, "topk_group": 2, "topk_method": "group_limited_greedy", "torch_dtype": "float32", "use_cache": True, "v_head_dim": 10, "vocab_size": 101,
}
LITE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "moe_intermediate_size": 56, "n_group": 1, "topk_group": 1, "topk_method": "greedy", "n_routed_experts": 6, "num_experts_per_tok": 2,
    "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 5, "q_lora_rank": None, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
    "v_head_dim": 16, "rms_norm_eps": 1e-6, "routed_scaling_factor": 1.0, "vocab_size": 131,
}

CASES = [
    Case("deepseek_v2_groups", SMALL, gguf=False, lora=lora("mlp", "mlp.shared_experts", attention=LATENT)),    # llama.cpp chooses groups by their two best
    Case("deepseek_v2_lite", LITE, gguf_lora=False, lora=lora("mlp.shared_experts", attention=["q_proj", *LATENT[2:]], use_rslora=True)),
    Case("deepseek_v2_sharded", LITE | {"q_lora_rank": 28, "rope_scaling": None}, sharded=True, lora={"target_modules": ["o_proj"]}),
]
