"""HunYuanMoEV1ForCausalLM: head norms after the rotation, experts and a shared MLP of one width in every layer."""
from case import Case
from expert_cases import lora

SMALL = {
    "architectures": ["HunYuanMoEV1ForCausalLM"], "model_type": "hunyuan_v1_moe", "hidden_act": "silu", "hidden_size": 48, "intermediate_size": 40,
    "num_experts": 6, "moe_topk": [2, 2, 2], "moe_intermediate_size": [40, 40, 40], "num_shared_expert": [1, 1, 1], "use_mixed_mlp_moe": True,
    "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16, "attention_head_dim": 16, "vocab_size": 101,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_theta": 10000.0, "use_qk_norm": True, "use_cla": False, "attention_bias": False,
    "attention_dropout": 0.0, "norm_type": "rms", "tie_word_embeddings": False, "use_cache": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 56, "moe_intermediate_size": 56, "num_experts": 8, "moe_topk": 3, "num_shared_expert": 1, "num_hidden_layers": 2,
    "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 24, "attention_head_dim": 24, "vocab_size": 131, "tie_word_embeddings": True,
    "rope_scaling": {"type": "dynamic", "alpha": 50.0, "factor": 1.0, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0},
}

CASES = [
    Case("hunyuan_v1_moe_untied", SMALL, lora=lora("mlp.shared_mlp")),
    Case("hunyuan_v1_moe_tied", WIDE, sharded=True, lora=lora("mlp.shared_mlp", use_rslora=True, r=3)),
    Case("hunyuan_v1_moe_unequal", SMALL | {"moe_topk": [1, 3, 2]}, gguf=False, lora=lora()),
]
