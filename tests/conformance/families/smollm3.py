"""SmolLM3ForCausalLM: every fourth layer does not rotate; no_rope_layers names others."""
from case import Case

SMALL = {
    "architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3", "hidden_act": "silu",
    "hidden_size": 48, "intermediate_size": 88, "num_hidden_layers": 5, "num_attention_heads": 6, "num_key_value_heads": 2,
    "vocab_size": 101, "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_theta": 50000.0, "rope_scaling": None,
    "no_rope_layers": [1, 1, 1, 0, 1], "no_rope_layer_interval": 4, "layer_types": ["full_attention"] * 5, "use_sliding_window": False,
    "sliding_window": None, "max_window_layers": 28, "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 5,
    "head_dim": 24, "vocab_size": 131, "tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True,
    "no_rope_layers": [1, 1], "layer_types": ["full_attention"] * 2,
}

CASES = [
    Case("smollm3_tied", SMALL),
    Case("smollm3_untied", WIDE | {"attention_bias": False, "mlp_bias": False}),
    Case("smollm3_biases", WIDE, sharded=True, lora={"use_rslora": True}, gguf=False),    # llama.cpp knows none
    Case("smollm3_other_layers", WIDE | {"no_rope_layers": [0, 1]}, gguf=False),
    Case("smollm3_window", SMALL | {"use_sliding_window": True, "sliding_window": 5, "layer_types": ["full_attention"] * 3 + ["sliding_attention", "full_attention"]},
         gguf=False),
]
