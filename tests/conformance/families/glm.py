"""GlmForCausalLM: neighbouring pairs of half of each head, fused gate and up, biases on q, k and v."""
from case import Case

SMALL = {
    "architectures": ["GlmForCausalLM"], "model_type": "glm", "hidden_act": "silu",
    "hidden_size": 48, "intermediate_size": 88, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12,
    "vocab_size": 101, "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_theta": 10000.0, "attention_bias": True,
    "attention_dropout": 0.0, "tie_word_embeddings": False, "eos_token_id": [1, 2], "pad_token_id": 1, "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 1,
    "head_dim": 24, "vocab_size": 131, "tie_word_embeddings": True, "attention_bias": False, "partial_rotary_factor": 0.75,
}

CASES = [
    Case("glm_biases", SMALL),
    Case("glm_tied", WIDE, sharded=True, lora={"use_rslora": True}, gguf=False),     # llama.cpp wants heads x head_dim = hidden
    Case("glm_tied_square", WIDE | {"head_dim": 16, "partial_rotary_factor": 0.5}),
]
