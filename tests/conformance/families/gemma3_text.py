"""Gemma3ForCausalLM: (1 + w) norms of query and key heads, two rotary tables, sliding layers in a period."""
from case import Case

SMALL = {
    "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 48, "intermediate_size": 88, "num_hidden_layers": 7, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 12,
    "vocab_size": 101, "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
    "rope_scaling": None, "query_pre_attn_scalar": 12, "sliding_window": 7, "sliding_window_pattern": 6, "attn_logit_softcapping": None,
    "final_logit_softcapping": None, "attention_bias": False, "attention_dropout": 0.0, "cache_implementation": "hybrid",
    "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "num_hidden_layers": 3, "num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": 24, "vocab_size": 131,
    "query_pre_attn_scalar": 24, "sliding_window": 4, "sliding_window_pattern": 2, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
}
# As transformers 5 writes it.
NEW = {key: value for key, value in WIDE.items() if key not in ("rope_theta", "rope_local_base_freq", "rope_scaling", "sliding_window_pattern", "torch_dtype")} | {
    "dtype": "float32", "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "tie_word_embeddings": False, "attention_bias": True,
    "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 500000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 20000.0}},
}

GGUF_KL = 1e-6
CASES = [
    Case("gemma3_text_period_6", SMALL),
    Case("gemma3_text_linear", WIDE, sharded=True, lora={"use_rslora": True}),
    Case("gemma3_text_rope_parameters", NEW, gguf=False),
]
