"""DeepseekV3ForCausalLM: latent attention with YaRN that scales scores, sigmoid router with groups by their two best, a shared expert, dense first layers."""
from case import Case, Layout
from expert_cases import EXPERTS, LATENT, lora, weights

YARN = {"beta_fast": 32, "beta_slow": 1, "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 32, "type": "yarn"}
SMALL = {
    "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "aux_loss_alpha": 0.001, "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1,
    "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 48, "initializer_range": 0.02, "intermediate_size": 88, "kv_lora_rank": 24, "max_position_embeddings": 128,
    "model_type": "deepseek_v3", "moe_intermediate_size": 24, "moe_layer_freq": 1, "n_group": 4, "n_routed_experts": 8, "n_shared_experts": 1, "norm_topk_prob": True,
    "num_attention_heads": 6, "num_experts_per_tok": 3, "num_hidden_layers": 3, "num_key_value_heads": 6, "num_nextn_predict_layers": 1, "pretraining_tp": 1, "q_lora_rank": 20,
    "qk_nope_head_dim": 13, "qk_rope_head_dim": 6, "rms_norm_eps": 1e-6, "rope_scaling": YARN, "rope_theta": 10000.0, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
    "seq_aux": True, "tie_word_embeddings": False, "topk_group": 2, "topk_method": "noaux_tc", "torch_dtype": "float32", "use_cache": True, "v_head_dim": 10, "vocab_size": 101,
}
# As Moonlight: no latent of the queries, one group. A value is larger than a key.
DIRECT = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "moe_intermediate_size": 56, "n_group": 1, "topk_group": 1, "n_routed_experts": 6, "n_shared_experts": 2, "num_experts_per_tok": 2,
    "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 5, "q_lora_rank": None, "kv_lora_rank": 32, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8,
    "v_head_dim": 28, "rope_scaling": None, "rope_theta": 50000.0, "routed_scaling_factor": 2.446, "vocab_size": 131,
}
FURTHER = Layout(surplus=tuple(f"model.layers.2.{name}.weight" for name in ("eh_proj", "enorm", "shared_head.norm")))   # predict further tokens: skipped

CASES = [
    Case("deepseek_v3_yarn", SMALL, lora=lora("mlp", "mlp.shared_experts", attention=LATENT), gguf_lora=False),
    # Adapters where llama.cpp adds them to the product.
    Case("deepseek_v3_direct", DIRECT, lora={"target_modules": ["o_proj"], "target_parameters": EXPERTS + weights("mlp.shared_experts"), "use_rslora": True}, layout=FURTHER),
    # What GGUF cannot say; the latents' norms keep an epsilon of 1e-6.
    Case("deepseek_v3_biases", DIRECT | {"attention_bias": True, "rope_interleave": False, "rms_norm_eps": 1e-3}, sharded=True, gguf=False,
         lora=lora("mlp", attention=["q_proj", *LATENT[2:]], r=3)),
    # Cosines and sines have a factor beside that of the scores.
    Case("deepseek_v3_two_mscales", SMALL | {"rope_scaling": YARN | {"mscale": 0.7, "mscale_all_dim": 1.3}, "rms_norm_eps": 1e-3, "tie_word_embeddings": True}, gguf=False,
         lora={"target_modules": LATENT}),
]
