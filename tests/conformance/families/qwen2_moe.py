"""Qwen2MoeForCausalLM: qwen2 with experts and a shared expert behind a sigmoid gate; router weights normalised or not."""
from case import Case
from expert_cases import lora

SMALL = {
    "architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "hidden_act": "silu", "hidden_size": 48, "intermediate_size": 88,
    "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40, "num_experts": 6, "num_experts_per_tok": 2, "norm_topk_prob": False,
    "decoder_sparse_step": 1, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 101,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_theta": 1000000.0, "attention_dropout": 0.0, "tie_word_embeddings": False,
    "use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 3, "router_aux_loss_coef": 0.001, "output_router_logits": False,
    "use_cache": True, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "moe_intermediate_size": 56, "shared_expert_intermediate_size": 72, "num_experts": 9, "num_experts_per_tok": 4,
    "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 1, "vocab_size": 131, "rope_theta": 10000.0,
}

CASES = [
    Case("qwen2_moe_untied", SMALL, lora=lora("mlp.shared_expert"), load_balancing=0.7),
    Case("qwen2_moe_sharded", WIDE, sharded=True, lora=lora("mlp.shared_expert", use_rslora=True, r=3)),
    Case("qwen2_moe_tied", SMALL | {"tie_word_embeddings": True}, gguf=False, lora=lora("mlp.shared_expert")),    # llama.cpp wants a head of its own
    Case("qwen2_moe_normalised", SMALL | {"norm_topk_prob": True, "mlp_only_layers": [0]}, gguf=False, lora=lora("mlp", "mlp.shared_expert")),
    Case("qwen2_moe_shared_only", SMALL, lora={"target_modules": ["gate_proj", "up_proj", "down_proj"]}),    # what PEFT makes of these names here
]
