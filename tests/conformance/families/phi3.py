"""Phi3ForCausalLM: fused projections, longrope by document length, partial rotation, sliding window."""
from case import Case

SMALL = {
    "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_act": "silu",
    "hidden_size": 48, "intermediate_size": 88, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2,
    "vocab_size": 101, "max_position_embeddings": 128, "original_max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_theta": 10000.0,
    "rope_scaling": None, "sliding_window": None, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attention_dropout": 0.0, "attention_bias": False,
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "torch_dtype": "float32",
}
LONGROPE = {"type": "longrope", "short_factor": [1.0 + 0.1 * i for i in range(6)], "long_factor": [1.5 + 0.7 * i for i in range(6)]}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 5, "vocab_size": 131,
    "tie_word_embeddings": True, "partial_rotary_factor": 0.75, "rope_scaling": LONGROPE, "original_max_position_embeddings": 11,
}

CASES = [
    Case("phi3_plain", SMALL),
    Case("phi3_window", SMALL | {"sliding_window": 6}, gguf=False),
    # 23 tokens are long, documents of 7, 1 and 2 short, of 12 and 19 long: each by its own length.
    Case("phi3_longrope", WIDE, sharded=True, lora={"use_rslora": True}),
    # llama.cpp chooses by the context that it is opened with (64 tokens, which it makes 256): long above, short here.
    Case("phi3_longrope_short", WIDE | {"original_max_position_embeddings": 256, "max_position_embeddings": 512}),
]
