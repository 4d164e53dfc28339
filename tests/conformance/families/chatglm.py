"""ChatGLM2, ChatGLM3 and GLM-4-9B in their authors' layout, judged by GlmForCausalLM with fused and renamed weights."""
from case import Case, Layout

LAYOUT = Layout(
    fused={"self_attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")},
    names={r"model\.layers\.": "transformer.encoder.layers.", r"model\.embed_tokens": "transformer.embedding.word_embeddings",
           r"model\.norm": "transformer.encoder.final_layernorm", "lm_head": "transformer.output_layer", r"self_attn\.qkv": "self_attention.query_key_value",
           r"self_attn\.o_proj": "self_attention.dense", r"mlp\.gate_up_proj": "mlp.dense_h_to_4h", r"mlp\.down_proj": "mlp.dense_4h_to_h"})
SMALL = {
    "architectures": ["ChatGLMModel"], "model_type": "chatglm", "hidden_size": 48, "ffn_hidden_size": 88, "num_layers": 3, "num_attention_heads": 4,
    "kv_channels": 12, "multi_query_attention": True, "multi_query_group_num": 2, "padded_vocab_size": 101, "seq_length": 128, "layernorm_epsilon": 1e-3,
    "rope_ratio": 50, "add_qkv_bias": True, "add_bias_linear": False, "rmsnorm": True, "post_layer_norm": True, "original_rope": True,
    "apply_residual_connection_post_layernorm": False, "apply_query_key_layer_scaling": True, "attention_softmax_in_fp32": True,
    "fp32_residual_connection": False, "bias_dropout_fusion": True, "hidden_dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": None,
    "quantization_bit": 0, "pre_seq_len": None, "prefix_projection": False, "tie_word_embeddings": False, "use_cache": True,
    "eos_token_id": [1, 2], "pad_token_id": 1, "torch_dtype": "float32", "auto_map": {"AutoModel": "modeling_chatglm.ChatGLMModel"},
}
WIDE = SMALL | {
    "hidden_size": 80, "ffn_hidden_size": 136, "num_layers": 2, "num_attention_heads": 5, "kv_channels": 16, "multi_query_group_num": 1, "padded_vocab_size": 131,
    "rope_ratio": 1,
}


def as_glm(config: dict) -> dict:
    return {
        "model_type": "glm", "hidden_act": "silu", "hidden_size": config["hidden_size"], "intermediate_size": config["ffn_hidden_size"],
        "num_hidden_layers": config["num_layers"], "num_attention_heads": config["num_attention_heads"], "num_key_value_heads": config["multi_query_group_num"],
        "head_dim": config["kv_channels"], "vocab_size": config["padded_vocab_size"], "max_position_embeddings": config["seq_length"],
        "rms_norm_eps": config["layernorm_epsilon"], "rope_theta": 10000.0 * config["rope_ratio"], "partial_rotary_factor": 0.5,
        "attention_bias": config["add_qkv_bias"], "tie_word_embeddings": False, "pad_token_id": 1,
    }


CASES = [
    Case("chatglm_rope_ratio", SMALL, reference=as_glm(SMALL), layout=LAYOUT),
    Case("chatglm_one_group", WIDE, reference=as_glm(WIDE), layout=LAYOUT, lora={"use_rslora": True, "r": 3}),
]
