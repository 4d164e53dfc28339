"""Qwen3_5ForCausalLM: qwen3_next's layers with projections apart and a dense MLP; alone and inside the vision model that is published."""
from case import Case, Layout
from expert_cases import ATTENTION

DELTA = ["in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj"]
SMALL = {
    "architectures": ["Qwen3_5ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "attn_output_gate": True, "bos_token_id": 0, "eos_token_id": 1,
    "full_attention_interval": 4, "head_dim": 16, "hidden_act": "silu", "hidden_size": 48, "initializer_range": 0.02, "intermediate_size": 88, "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 12, "linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_value_head_dim": 12, "mamba_ssm_dtype": "float32", "max_position_embeddings": 128,
    "model_type": "qwen3_5_text", "mtp_num_hidden_layers": 1, "num_attention_heads": 6, "num_hidden_layers": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
    "rope_parameters": {"mrope_interleaved": True, "mrope_section": [1, 1, 0], "partial_rotary_factor": 0.25, "rope_theta": 10000000.0, "rope_type": "default"},
    "tie_word_embeddings": False, "dtype": "float32", "use_cache": True, "vocab_size": 101,
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "head_dim": 24, "num_attention_heads": 5, "num_key_value_heads": 1, "num_hidden_layers": 3, "linear_num_key_heads": 3,
    "linear_num_value_heads": 3, "linear_key_head_dim": 10, "linear_value_head_dim": 14, "linear_conv_kernel_dim": 3, "vocab_size": 131, "tie_word_embeddings": True, "rms_norm_eps": 1e-2,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "rope_parameters": SMALL["rope_parameters"] | {"mrope_section": [3, 2, 1], "partial_rotary_factor": 0.5, "rope_theta": 10000.0},
}
WRAPPED = {"architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5", "text_config": SMALL, "vision_config": {"model_type": "qwen3_5"}, "image_token_id": 10,
           "video_token_id": 11, "vision_start_token_id": 8, "vision_end_token_id": 9, "tie_word_embeddings": False, "dtype": "float32"}
IN_VISION_MODEL = Layout(names={r"^model\.": "model.language_model."}, surplus=("model.visual.patch_embed.proj.weight", "mtp.fc.weight"))

CASES = [
    Case("qwen3_5_text_untied", SMALL, lora={"target_modules": "all-linear"}),
    Case("qwen3_5_text_tied", WIDE, sharded=True, gguf=False, lora={"target_modules": ATTENTION + DELTA, "use_rslora": True, "r": 3}),
    Case("qwen3_5_text_in_vision_model", WRAPPED, reference=SMALL, layout=IN_VISION_MODEL),
]
