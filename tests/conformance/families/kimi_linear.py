"""KimiLinearForCausalLM: Kimi Delta Attention, latent attention without positions, DeepSeek V3's router and experts; hub names and transformers' own."""
from case import Case
from expert_cases import lora

DELTA = ["q_proj", "k_proj", "v_proj", "f_a_proj", "f_b_proj", "b_proj", "g_a_proj", "g_b_proj", "o_proj"]
LATENT = ["kv_a_proj_with_mqa", "kv_b_proj"]
SMALL = {
    "architectures": ["KimiLinearForCausalLM"], "bos_token_id": 0, "dtype": "float32", "eos_token_id": 1, "first_k_dense_replace": 1, "head_dim": 6, "hidden_act": "silu",
    "hidden_size": 48, "initializer_range": 0.02, "intermediate_size": 88, "kv_lora_rank": 24,
    "linear_attn_config": {"full_attn_layers": [3], "head_dim": 12, "kda_layers": [1, 2], "num_heads": 4, "short_conv_kernel_size": 4}, "mla_use_nope": True,
    "model_max_length": 128, "model_type": "kimi_linear", "moe_intermediate_size": 24, "moe_layer_freq": 1, "moe_renormalize": True, "moe_router_activation_func": "sigmoid",
    "num_attention_heads": 4, "num_expert_group": 1, "num_experts": 6, "num_experts_per_token": 2, "num_hidden_layers": 3, "num_key_value_heads": 4,
    "num_nextn_predict_layers": 0, "num_shared_experts": 1, "pad_token_id": 2, "q_lora_rank": None, "qk_nope_head_dim": 13, "qk_rope_head_dim": 6, "rms_norm_eps": 1e-5,
    "rope_scaling": None, "rope_theta": 10000.0, "routed_scaling_factor": 2.446, "tie_word_embeddings": False, "topk_group": 1, "use_cache": True, "use_grouped_topk": True,
    "v_head_dim": 10, "vocab_size": 101,
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "moe_intermediate_size": 56, "num_experts": 8, "num_experts_per_token": 3, "num_hidden_layers": 2, "num_attention_heads": 5,
    "num_key_value_heads": 5, "kv_lora_rank": 32, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 28, "num_shared_experts": 2, "vocab_size": 131,
    "num_expert_group": 4, "topk_group": 2, "rms_norm_eps": 1e-3,
    "linear_attn_config": {"full_attn_layers": [1], "head_dim": 14, "kda_layers": [2], "num_heads": 3, "short_conv_kernel_size": 3},
}

CASES = [
    Case("kimi_linear_untied", SMALL, lora=lora("mlp", "mlp.shared_experts", attention=DELTA + LATENT), gguf_lora=False),
    Case("kimi_linear_sharded", WIDE, sharded=True, gguf=False, lora=lora("mlp", "mlp.shared_experts", attention=DELTA + LATENT, use_rslora=True, r=3)),
]
