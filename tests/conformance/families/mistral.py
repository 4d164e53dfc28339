"""MistralForCausalLM: Llama with a sliding window in all layers, and without (null)."""
from case import Case

SMALL = {
    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",
    "hidden_size": 48, "intermediate_size": 88, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2,
    "vocab_size": 101, "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_theta": 10000.0, "sliding_window": 7,
    "attention_dropout": 0.0, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 1,
    "head_dim": 24, "vocab_size": 131, "rope_theta": 1000000.0, "sliding_window": None,
}

CASES = [
    Case("mistral_window", SMALL, gguf=False),       # llama.cpp computes no window: its files promise a context of 7
    Case("mistral_no_window", WIDE, sharded=True, lora={"use_rslora": True}),
    Case("mistral_window_tied", WIDE | {"sliding_window": 100, "tie_word_embeddings": True}),
]
