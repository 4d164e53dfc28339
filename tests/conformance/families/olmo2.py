"""Olmo2ForCausalLM: norms after the blocks, and norms of all queries and all keys of a token."""
from case import Case

SMALL = {
    "architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2", "hidden_act": "silu",
    "hidden_size": 48, "intermediate_size": 88, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2,
    "vocab_size": 101, "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_theta": 500000.0, "rope_scaling": None, "attention_bias": False,
    "attention_dropout": 0.0, "tie_word_embeddings": False, "eos_token_id": 2, "pad_token_id": 1, "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 5,
    "vocab_size": 131, "tie_word_embeddings": True, "rope_theta": 10000.0,
}

CASES = [
    Case("olmo2_untied", SMALL),
    Case("olmo2_tied", WIDE, sharded=True, lora={"use_rslora": True}, gguf=False),    # llama.cpp wants a head of its own
]
