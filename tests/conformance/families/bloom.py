"""BloomForCausalLM: LayerNorms, ALiBi, query, key and value by head in one matrix; hub files lack the prefix "transformer."."""
from case import Case, Layout

SMALL = {
    "architectures": ["BloomForCausalLM"], "model_type": "bloom", "n_embed": 48, "n_layer": 3, "num_attention_heads": 6, "vocab_size": 101,
    "seq_length": 128, "layer_norm_epsilon": 1e-3, "apply_residual_connection_post_layernorm": False, "attention_dropout": 0.0, "hidden_dropout": 0.0,
    "attention_softmax_in_fp32": True, "bias_dropout_fusion": True, "masked_softmax_fusion": True, "n_inner": None, "offset_alibi": 100,
    "pretraining_tp": 1, "skip_bias_add": True, "skip_bias_add_qkv": False, "slow_but_exact": False, "unk_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 3, "torch_dtype": "float32",
}
WIDE = {key: value for key, value in SMALL.items() if key not in ("n_embed", "num_attention_heads")} | {
    "hidden_size": 80, "n_head": 8, "n_layer": 2, "vocab_size": 131, "tie_word_embeddings": False,
}

GGUF_KL = 1e-6
CASES = [
    Case("bloom_hub_names", SMALL, layout=Layout(names={r"^transformer\.": ""})),
    Case("bloom_untied", WIDE, sharded=True, lora={"use_rslora": True}),
]
