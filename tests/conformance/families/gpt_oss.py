"""GptOssForCausalLM: experts as one transposed tensor with gate and up in turn and with biases, clamped SwiGLU; sinks; windows; YaRN without truncation."""
from case import Case, GgufCase
from expert_cases import lora

SMALL = {
    "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "hidden_act": "silu", "hidden_size": 48, "intermediate_size": 40, "num_local_experts": 6,
    "num_experts_per_tok": 2, "experts_per_token": 2, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16,
    "vocab_size": 101, "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_parameters": {"rope_type": "default", "rope_theta": 150000.0}, "attention_bias": True, "attention_dropout": 0.0,
    "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "swiglu_limit": 7.0, "initial_context_length": 4096,
    "router_aux_loss_coef": 0.9, "output_router_logits": False, "tie_word_embeddings": False, "use_cache": True, "eos_token_id": 2, "pad_token_id": 0,
    "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 56, "num_local_experts": 8, "num_experts_per_tok": 3, "experts_per_token": 3, "num_hidden_layers": 2,
    "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 131, "layer_types": ["sliding_attention", "full_attention"],
}
YARN = {"rope_parameters": None, "rope_theta": 150000.0, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
                                                                          "original_max_position_embeddings": 32}}

BLOCKS = SMALL | {"hidden_size": 64, "intermediate_size": 96}        # whole blocks of 32

CASES = [
    Case("gpt_oss_plain_rope", SMALL, lora=lora(), load_balancing=0.7),
    Case("gpt_oss_sharded", WIDE, sharded=True, lora=lora(use_rslora=True, r=3)),
    Case("gpt_oss_default_rope", SMALL | {"rope_parameters": None}, gguf=False, lora={"target_modules": ["k_proj"], "target_parameters": ["experts.down_proj"]}),
    Case("gpt_oss_mxfp4", BLOCKS | {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}},
         reference=BLOCKS, mxfp4=True, lora=lora()),
    Case("gpt_oss_yarn", WIDE | YARN | {"swiglu_limit": 0.6}, gguf=False, lora=lora()),     # llama.cpp rounds YaRN's bounds, and has limit 7 in its graph
]

GGUF_CASES = [
    GgufCase("gpt_oss_gguf_f32", SMALL, types=("F32",), lora=lora()),
    GgufCase("gpt_oss_gguf_mxfp4", BLOCKS, types=("MXFP4",), head_type="Q8_0", lora=lora()),
]
