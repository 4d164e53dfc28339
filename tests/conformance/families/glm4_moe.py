"""Glm4MoeForCausalLM: sigmoid router with a selection bias and groups, a shared expert, dense first layers; half of each head turns."""
from case import Case, Layout
from expert_cases import lora

SMALL = {
    "architectures": ["Glm4MoeForCausalLM"], "model_type": "glm4_moe", "hidden_act": "silu", "hidden_size": 48, "intermediate_size": 88,
    "moe_intermediate_size": 24, "n_routed_experts": 6, "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "norm_topk_prob": True,
    "routed_scaling_factor": 1.7, "first_k_dense_replace": 1, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16,
    "vocab_size": 101, "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_theta": 1000000.0, "rope_scaling": None, "partial_rotary_factor": 0.5,
    "attention_bias": True, "use_qk_norm": False, "attention_dropout": 0.0, "tie_word_embeddings": False, "num_nextn_predict_layers": 1, "use_cache": True,
    "eos_token_id": [1, 2], "pad_token_id": 1, "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "moe_intermediate_size": 56, "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 2,
    "routed_scaling_factor": 1.0, "first_k_dense_replace": 0, "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 24,
    "vocab_size": 131, "attention_bias": False, "use_qk_norm": True, "rope_theta": 10000.0,
}
FURTHER = Layout(surplus=tuple(f"model.layers.3.{name}.weight" for name in ("eh_proj", "enorm", "shared_head.norm")))   # predict further tokens: skipped

CASES = [
    Case("glm4_moe_biases", SMALL, lora=lora("mlp", "mlp.shared_experts"), layout=FURTHER),
    Case("glm4_moe_head_norms", WIDE, sharded=True, lora=lora("mlp.shared_experts", use_rslora=True, r=3)),
    Case("glm4_moe_groups", WIDE | {"n_group": 4, "topk_group": 2, "first_k_dense_replace": 1}, lora=lora("mlp")),
]
