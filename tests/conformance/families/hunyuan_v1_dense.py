"""HunYuanDenseV1ForCausalLM: RMS norms of query and key heads after the rotation; theta grown by alpha."""
from case import Case

SMALL = {
    "architectures": ["HunYuanDenseV1ForCausalLM"], "model_type": "hunyuan_v1_dense", "hidden_act": "silu",
    "hidden_size": 48, "intermediate_size": 88, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 12,
    "vocab_size": 101, "org_vocab_size": 101, "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_theta": 10000.0,
    "rope_scaling": {"alpha": 1000.0, "beta_fast": 32, "beta_slow": 1, "factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "type": "dynamic"},
    "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.1, "attention_head_dim": 12, "use_cla": False, "cla_share_factor": 2,
    "use_qk_norm": True, "use_rotary_pos_emb": True, "norm_type": "rms", "num_experts": 1, "dense_list": [48, 0], "class_num": 0,
    "add_classification_head": False, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "eod_token_id": 3, "pad_id": 0, "pad_token_id": 0,
    "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 5,
    "head_dim": 24, "vocab_size": 131, "org_vocab_size": 131, "tie_word_embeddings": False, "rope_scaling": None,
}

CASES = [
    Case("hunyuan_v1_dense_alpha", SMALL),
    Case("hunyuan_v1_dense_untied", WIDE, sharded=True, lora={"use_rslora": True}),
    Case("hunyuan_v1_dense_biases", WIDE | {"attention_bias": True}, gguf=False),     # llama.cpp knows none
]
