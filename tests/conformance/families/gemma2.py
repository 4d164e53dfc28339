"""Gemma2ForCausalLM: (1 + w) norms around both halves, GELU, softcaps, every second layer slides, scaled embeddings."""
from case import Case

SMALL = {
    "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 48, "intermediate_size": 88, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 12,
    "vocab_size": 101, "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_theta": 10000.0, "query_pre_attn_scalar": 12, "sliding_window": 7,
    "attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0, "attention_bias": False, "attention_dropout": 0.0, "cache_implementation": "hybrid",
    "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": 24, "vocab_size": 131,
    "query_pre_attn_scalar": 40, "tie_word_embeddings": False, "attention_bias": True, "attn_logit_softcapping": None, "final_logit_softcapping": None,
    "sliding_window": 4,
}

# llama.cpp reads GELU from a table of 16-bit floats.
GGUF_KL = 1e-6
CASES = [
    Case("gemma2_softcaps", SMALL),
    Case("gemma2_untied", WIDE, sharded=True, lora={"use_rslora": True}, gguf=False),
    Case("gemma2_all_full", SMALL | {"layer_types": ["full_attention"] * 3}),
]
