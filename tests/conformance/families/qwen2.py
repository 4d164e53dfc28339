"""Qwen2ForCausalLM (Qwen2, Qwen2.5): biases on q, k and v only."""
from case import Case
from gguf_cases import gguf_cases

SMALL = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
    "hidden_size": 56, "intermediate_size": 104, "num_hidden_layers": 3, "num_attention_heads": 7, "num_key_value_heads": 1,
    "vocab_size": 109, "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_theta": 1000000.0,
    "tie_word_embeddings": True, "use_sliding_window": False, "sliding_window": 16, "max_window_layers": 2,
    "attention_dropout": 0.0, "use_cache": True, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 96, "intermediate_size": 168, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 3,
    "vocab_size": 127, "tie_word_embeddings": False, "rope_theta": 10000.0,
}

CASES = [
    Case("qwen2_tied", SMALL),
    Case("qwen2_untied", WIDE, sharded=True, lora={"use_rslora": True, "r": 5}),
    Case("qwen2_window", SMALL | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}, gguf=False),   # llama.cpp computes none
    Case("qwen2_yarn", WIDE | {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}}),
]

GGUF_CASES = gguf_cases("qwen2", SMALL | {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
                                        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False})
