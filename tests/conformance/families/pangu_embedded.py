"""openPangu-Embedded, judged by LlamaForCausalLM with biases on all four attention projections."""
from case import Case

SMALL = {
    "architectures": ["PanguEmbeddedForCausalLM"], "model_type": "PanguEmbedded", "hidden_act": "silu", "bias": True,
    "hidden_size": 48, "intermediate_size": 88, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2,
    "vocab_size": 101, "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_theta": 4000000.0, "attention_dropout": 0.0,
    "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 1,
    "head_dim": 24, "vocab_size": 131, "tie_word_embeddings": False, "rope_theta": 16000.0,
}


def as_llama(config: dict) -> dict:
    rest = {key: value for key, value in config.items() if key not in ("bias", "architectures")}
    return rest | {"model_type": "llama", "attention_bias": config["bias"]}


CASES = [
    Case("pangu_embedded_tied", SMALL, reference=as_llama(SMALL)),
    Case("pangu_embedded_untied", WIDE, reference=as_llama(WIDE), sharded=True, lora={"use_rslora": True}),
]
