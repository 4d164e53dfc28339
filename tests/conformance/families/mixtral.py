"""MixtralForCausalLM: experts w1, w2, w3 below block_sparse_moe; weights normalised over the chosen."""
from case import Case
from expert_cases import lora
from gguf_cases import gguf_cases

SMALL = {
    "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_act": "silu", "hidden_size": 48, "intermediate_size": 40,
    "num_local_experts": 5, "num_experts_per_tok": 2, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 101,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_theta": 1000000.0, "attention_dropout": 0.0, "tie_word_embeddings": False, "sliding_window": None,
    "router_aux_loss_coef": 0.02, "output_router_logits": False, "use_cache": True, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 56, "num_local_experts": 8, "num_experts_per_tok": 3, "num_hidden_layers": 2, "num_attention_heads": 5,
    "num_key_value_heads": 1, "head_dim": 24, "vocab_size": 131, "tie_word_embeddings": True, "rope_theta": 10000.0,
}

CASES = [
    Case("mixtral_untied", SMALL, lora=lora(), load_balancing=0.7),
    Case("mixtral_tied", WIDE, sharded=True, lora=lora(use_rslora=True, r=5)),
    Case("mixtral_stacked", SMALL, stacked=True, lora={"target_modules": ["v_proj"], "target_parameters": ["mlp.experts.gate_up_proj"]}),
    Case("mixtral_window", SMALL | {"sliding_window": 5}, gguf=False, lora={"target_modules": ["q_proj", "w1", "w2", "w3"]}),
]

GGUF_CASES = gguf_cases("mixtral", SMALL | {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2,
                                          "num_local_experts": 4}, lora=lora())
