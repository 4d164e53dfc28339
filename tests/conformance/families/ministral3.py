"""Ministral3ForCausalLM: YaRN, and queries that grow with the position beyond the original context."""
from case import Case, Layout

YARN = {"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 16.0, "original_max_position_embeddings": 8, "max_position_embeddings": 128,
        "beta_fast": 4.0, "beta_slow": 1.0, "mscale_all_dim": 1.0, "mscale": 1.0, "llama_4_scaling_beta": 0.3}
SMALL = {
    "architectures": ["Ministral3ForCausalLM"], "model_type": "ministral3", "hidden_act": "silu",
    "hidden_size": 48, "intermediate_size": 88, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16,
    "vocab_size": 101, "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "sliding_window": None, "rope_parameters": YARN,
    "attention_dropout": 0.0, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 1,
    "head_dim": 24, "vocab_size": 131, "tie_word_embeddings": True, "rope_parameters": YARN | {"rope_theta": 10000.0, "factor": 4.0, "beta_fast": 32.0},
}

# Inside a vision model, as Ministral-3-3B is published: the text part is read, the rest skipped by name.
WRAPPED = {"architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3", "text_config": SMALL, "vision_config": {"model_type": "pixtral"},
           "image_token_index": 10, "spatial_merge_size": 2, "dtype": "float32"}
IN_VISION_MODEL = Layout(names={r"^model\.": "language_model.model.", r"^lm_head": "language_model.lm_head"},
                         surplus=("vision_tower.patch_conv.weight", "multi_modal_projector.norm.weight"))

CASES = [
    Case("ministral3_yarn", SMALL),
    Case("ministral3_tied", WIDE, sharded=True, lora={"use_rslora": True}),
    Case("ministral3_in_vision_model", WRAPPED, reference=SMALL, layout=IN_VISION_MODEL),
    Case("ministral3_window", SMALL | {"sliding_window": 5}, gguf=False),
]
