"""GPT2LMHeadModel: LayerNorms, learned positions, matrices stored transposed; hub files lack the prefix "transformer."."""
from case import Case, Layout

SMALL = {
    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new", "n_embd": 48, "n_layer": 3, "n_head": 6, "n_ctx": 128,
    "n_positions": 128, "vocab_size": 101, "layer_norm_epsilon": 1e-3, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
    "summary_type": "cls_index", "summary_use_proj": True, "summary_activation": None, "summary_proj_to_labels": True, "summary_first_dropout": 0.1,
    "bos_token_id": 2, "eos_token_id": 2, "torch_dtype": "float32", "task_specific_params": {"text-generation": {"do_sample": True}},
}
WIDE = SMALL | {"n_embd": 80, "n_layer": 2, "n_head": 5, "n_inner": 136, "vocab_size": 131, "tie_word_embeddings": False}

GGUF_KL = 1e-6
CASES = [
    Case("gpt2_hub_names", SMALL, layout=Layout(names={r"^transformer\.": ""}), lora={"fan_in_fan_out": True}),
    Case("gpt2_untied", WIDE, sharded=True, lora={"use_rslora": True, "fan_in_fan_out": True}),
]
