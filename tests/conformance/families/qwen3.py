"""Qwen3ForCausalLM: RMSNorm on each query and key head before rope; head_dim is free of hidden_size / heads."""
from case import Case
from gguf_cases import gguf_cases

SMALL = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
    "hidden_size": 40, "intermediate_size": 72, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "vocab_size": 103, "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_theta": 1000000.0,
    "rope_scaling": None, "attention_bias": False, "attention_dropout": 0.0, "tie_word_embeddings": True,
    "use_sliding_window": False, "sliding_window": None, "max_window_layers": 3, "use_cache": True,
    "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 72, "intermediate_size": 120, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 6,
    "head_dim": 24, "vocab_size": 139, "rope_theta": 10000.0, "tie_word_embeddings": False,
}

CASES = [
    Case("qwen3_tied", SMALL),
    Case("qwen3_untied", WIDE, sharded=True),
    Case("qwen3_attention_bias", WIDE | {"attention_bias": True}, gguf=False),    # llama.cpp knows none
    Case("qwen3_window", SMALL | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}, gguf=False),
]

GGUF_CASES = gguf_cases("qwen3", SMALL | {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
                                        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64})
