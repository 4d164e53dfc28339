"""Ernie4_5ForCausalLM: neighbouring pairs, one switch for all biases."""
from case import Case

SMALL = {
    "architectures": ["Ernie4_5_ForCausalLM"], "model_type": "ernie4_5", "hidden_act": "silu",
    "hidden_size": 48, "intermediate_size": 88, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 12,
    "vocab_size": 101, "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_theta": 500000.0, "rope_scaling": None, "use_bias": False,
    "tie_word_embeddings": True, "use_cache": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 1,
    "head_dim": 24, "vocab_size": 131, "tie_word_embeddings": False, "rope_theta": 10000.0,
}

CASES = [
    Case("ernie4_5_tied", SMALL),
    Case("ernie4_5_untied", WIDE, sharded=True, lora={"use_rslora": True}),
    Case("ernie4_5_biases", WIDE | {"use_bias": True}, gguf=False),
]
