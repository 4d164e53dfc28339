"""Ernie4_5_MoeForCausalLM: softmax router with a selection bias, shared experts as one MLP, experts in some layers; neighbouring pairs."""
from case import Case
from expert_cases import lora

SMALL = {
    "architectures": ["Ernie4_5_MoeForCausalLM"], "model_type": "ernie4_5_moe", "hidden_act": "silu", "hidden_size": 48, "intermediate_size": 88,
    "moe_intermediate_size": 24, "moe_num_experts": 6, "moe_k": 2, "moe_num_shared_experts": 2, "moe_layer_start_index": 1, "moe_layer_end_index": 2,
    "moe_layer_interval": 1, "moe_gate": "topk", "moe_use_aux_free": True, "moe_capacity": [64, 64, 64], "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 12, "vocab_size": 101, "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_theta": 500000.0,
    "use_bias": False, "tie_word_embeddings": True, "use_cache": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "moe_intermediate_size": 56, "moe_num_experts": 9, "moe_k": 3, "moe_num_shared_experts": 1,
    "moe_layer_start_index": 0, "moe_layer_end_index": 3, "moe_layer_interval": 2, "num_hidden_layers": 4, "num_attention_heads": 5, "num_key_value_heads": 1,
    "head_dim": 24, "vocab_size": 131, "tie_word_embeddings": False, "rope_theta": 10000.0,
}

CASES = [
    Case("ernie4_5_moe_tied", SMALL, lora=lora("mlp", "mlp.shared_experts"), load_balancing=0.7),
    Case("ernie4_5_moe_two_dense", WIDE | {"moe_layer_start_index": 2, "moe_layer_interval": 1}, lora=lora("mlp")),
    Case("ernie4_5_moe_interval", WIDE, sharded=True, gguf=False, lora=lora("mlp", "mlp.shared_experts", use_rslora=True, r=3)),
    Case("ernie4_5_moe_unshared", WIDE | {"num_hidden_layers": 2, "moe_num_shared_experts": 0}, lora=lora("mlp")),
]
