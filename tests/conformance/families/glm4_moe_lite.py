"""Glm4MoeLiteForCausalLM (GLM-4.7-Flash): DeepSeek V3's latent attention and router; a list says which layers are dense."""
from case import Case, Layout
from expert_cases import EXPERTS, LATENT, lora

SMALL = {
    "architectures": ["Glm4MoeLiteForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "pad_token_id": 1, "eos_token_id": [1, 2], "hidden_act": "silu",
    "hidden_size": 48, "intermediate_size": 88, "max_position_embeddings": 128, "model_type": "glm4_moe_lite", "moe_intermediate_size": 24, "topk_method": "noaux_tc",
    "norm_topk_prob": True, "num_attention_heads": 5, "n_group": 1, "topk_group": 1, "n_routed_experts": 6, "n_shared_experts": 1, "routed_scaling_factor": 1.8,
    "num_experts_per_tok": 2, "first_k_dense_replace": 1, "num_hidden_layers": 3, "num_key_value_heads": 5, "num_nextn_predict_layers": 1, "partial_rotary_factor": 1.0,
    "rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": 1000000.0, "tie_word_embeddings": False, "dtype": "float32", "q_lora_rank": 20, "kv_lora_rank": 24,
    "qk_nope_head_dim": 18, "qk_rope_head_dim": 6, "v_head_dim": 24, "vocab_size": 101,
}
WIDE = {key: value for key, value in SMALL.items() if key != "first_k_dense_replace"} | {
    "hidden_size": 80, "intermediate_size": 136, "moe_intermediate_size": 56, "n_group": 2, "n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 3,
    "num_attention_heads": 4, "num_key_value_heads": 4, "q_lora_rank": 28, "kv_lora_rank": 32, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 17, "vocab_size": 131,
    "mlp_layer_types": ["sparse", "dense", "sparse"], "rms_norm_eps": 1e-3,
}
FURTHER = Layout(surplus=tuple(f"model.layers.3.{name}.weight" for name in ("eh_proj", "enorm", "shared_head.norm")))   # predict further tokens: skipped

CASES = [
    Case("glm4_moe_lite_first_dense", SMALL, lora=lora("mlp", "mlp.shared_experts", attention=LATENT), gguf_lora=False),
    Case("glm4_moe_lite_layers", WIDE, sharded=True, gguf=False, lora=lora("mlp", attention=LATENT, use_rslora=True, r=3)),    # llama.cpp: dense layers stand first
    Case("glm4_moe_lite_further", SMALL, layout=FURTHER, lora={"target_modules": ["o_proj"], "target_parameters": EXPERTS}),
]
