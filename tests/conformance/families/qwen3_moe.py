"""Qwen3MoeForCausalLM: qwen3 with experts; dense layers by a list or a step; router weights normalised or not."""
from case import Case
from expert_cases import lora
from gguf_cases import gguf_cases

SMALL = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_act": "silu", "hidden_size": 40, "intermediate_size": 72,
    "moe_intermediate_size": 24, "num_experts": 6, "num_experts_per_tok": 2, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 103, "max_position_embeddings": 128,
    "rms_norm_eps": 1e-3, "rope_theta": 1000000.0, "rope_scaling": None, "attention_bias": False, "attention_dropout": 0.0, "tie_word_embeddings": True,
    "use_sliding_window": False, "sliding_window": None, "max_window_layers": 3, "router_aux_loss_coef": 0.001, "output_router_logits": False,
    "use_cache": True, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 72, "intermediate_size": 120, "moe_intermediate_size": 56, "num_experts": 9, "num_experts_per_tok": 3, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 6, "head_dim": 24, "vocab_size": 139, "rope_theta": 10000.0, "tie_word_embeddings": False,
}

CASES = [
    Case("qwen3_moe_tied", SMALL, lora=lora(), load_balancing=0.7),
    Case("qwen3_moe_untied", WIDE, sharded=True, lora=lora(use_rslora=True, r=3)),
    Case("qwen3_moe_stacked", SMALL, stacked=True, lora={"target_modules": ["q_proj", "gate_proj", "up_proj", "down_proj"]}),   # names of transformers 4
    Case("qwen3_moe_down_only", WIDE | {"num_hidden_layers": 1}, lora={"target_modules": ["v_proj"], "target_parameters": ["experts.down_proj"]}),
    Case("qwen3_moe_dense_layers", SMALL | {"mlp_only_layers": [1], "norm_topk_prob": False, "num_hidden_layers": 4, "decoder_sparse_step": 2}, gguf=False,
         lora=lora("mlp")),
]

# Blocks of 256: K-quants. The stacked experts take the types in turn, gate and up in different ones.
GGUF_CASES = gguf_cases("qwen3_moe", SMALL | {"hidden_size": 256, "moe_intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2,
                                            "head_dim": 64, "num_experts": 4}, lora=lora())
