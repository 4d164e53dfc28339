"""Qwen3NextForCausalLM: Gated DeltaNet in three layers of four, attention with an output gate in the fourth, experts and a shared one behind a sigmoid gate."""
from case import Case, Layout
from expert_cases import ATTENTION, lora

DELTA = ["in_proj_qkvz", "in_proj_ba", "out_proj"]
SMALL = {
    "architectures": ["Qwen3NextForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0, "decoder_sparse_step": 1, "eos_token_id": 1,
    "full_attention_interval": 4, "head_dim": 16, "hidden_act": "silu", "hidden_size": 48, "initializer_range": 0.02, "intermediate_size": 88, "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 12, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_value_head_dim": 12, "max_position_embeddings": 128, "mlp_only_layers": [],
    "model_type": "qwen3_next", "moe_intermediate_size": 24, "norm_topk_prob": True, "num_attention_heads": 6, "num_experts": 6, "num_experts_per_tok": 2,
    "num_hidden_layers": 4, "num_key_value_heads": 2, "output_router_logits": False, "partial_rotary_factor": 0.25, "rms_norm_eps": 1e-6, "rope_scaling": None,
    "rope_theta": 10000.0, "router_aux_loss_coef": 0.001, "shared_expert_intermediate_size": 40, "tie_word_embeddings": False, "torch_dtype": "float32", "use_cache": True,
    "use_sliding_window": False, "vocab_size": 101,
}
# A value is larger than a key, one key head, a short convolution; layers in another order.
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "moe_intermediate_size": 56, "shared_expert_intermediate_size": 72, "num_experts": 9, "num_experts_per_tok": 4, "head_dim": 24, "rms_norm_eps": 1e-2,
    "num_attention_heads": 5, "num_key_value_heads": 1, "num_hidden_layers": 3, "linear_num_key_heads": 1, "linear_num_value_heads": 3, "linear_key_head_dim": 10,
    "linear_value_head_dim": 14, "linear_conv_kernel_dim": 3, "vocab_size": 131, "rope_theta": 1000000.0, "partial_rotary_factor": 0.5,
    "layer_types": ["full_attention", "linear_attention", "linear_attention"], "full_attention_interval": 4,
}
FURTHER = Layout(surplus=("mtp.fc.weight", "mtp.layers.0.input_layernorm.weight"))   # predict further tokens: skipped

CASES = [
    Case("qwen3_next_untied", SMALL, lora=lora("mlp.shared_expert", attention=ATTENTION + DELTA), load_balancing=0.7),
    Case("qwen3_next_sharded", WIDE, sharded=True, gguf=False, lora=lora("mlp.shared_expert", attention=ATTENTION + DELTA, use_rslora=True, r=3)),
    Case("qwen3_next_further", SMALL | {"tie_word_embeddings": True, "linear_num_value_heads": 2, "rms_norm_eps": 1e-5}, lora={"target_modules": DELTA + ATTENTION}, layout=FURTHER),
    # What GGUF cannot say: biases, dense layers.
    Case("qwen3_next_biases", SMALL | {"rms_norm_eps": 1e-3, "attention_bias": True, "mlp_only_layers": [1]}, gguf=False, lora=lora("mlp", "mlp.shared_expert", attention=ATTENTION)),
]
