"""LlamaForCausalLM (Llama 1 to 3, SmolLM2, and many more): grouped attention, SwiGLU, RMSNorm, rope with scaling."""
import math

from case import Case, GgufCase
from gguf_cases import gguf_cases

SMALL = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 48, "intermediate_size": 88, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2,
    "vocab_size": 101, "max_position_embeddings": 128, "rms_norm_eps": 1e-3, "rope_theta": 10000.0,
    "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False, "initializer_range": 0.02,
    "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
}
WIDE = SMALL | {
    "hidden_size": 80, "intermediate_size": 136, "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 5,
    "head_dim": 16, "vocab_size": 131, "rope_theta": 500000.0, "tie_word_embeddings": True,
}
# All three branches of the llama3 formula: wavelengths below 8, between 8 and 32, and above 32 tokens.
LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 32}


def without(config: dict, *keys: str) -> dict:
    return {key: value for key, value in config.items() if key not in keys}


CASES = [
    Case("llama_plain", SMALL),
    Case("llama_tied", WIDE, lora={"use_rslora": True}),
    Case("llama_rope_llama3", SMALL | {"head_dim": 16, "rope_scaling": LLAMA3_ROPE}, sharded=True, gguf_to_hub=False),
    Case("llama_rope_llama3_tied", WIDE | {"rope_scaling": LLAMA3_ROPE}, gguf_to_hub=False),
    Case("llama_rope_linear", SMALL | {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    # transformers 5 writes rope_parameters where the hub's older files have rope_theta and rope_scaling.
    Case("llama_rope_parameters",
         without(WIDE, "rope_theta", "torch_dtype") | {
             "dtype": "float32", "rope_parameters": LLAMA3_ROPE | {"rope_theta": 20000.0}}, gguf_to_hub=False),
    Case("llama_biases", SMALL | {"attention_bias": True, "mlp_bias": True}, lora={"target_modules": ["q_proj", "down_proj"]}),
    Case("llama_biases_wide", WIDE | {"attention_bias": True, "mlp_bias": True}, sharded=True),
]

BLOCKS = SMALL | {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 8,
                  "num_key_value_heads": 2, "vocab_size": 160}


def llama3_factors(config: dict) -> tuple:
    """rope_freqs.weight as llama.cpp's converter writes it: what each frequency is divided by."""
    rope, factors = config["rope_scaling"], []
    old, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
    for i in range(0, config["head_dim"], 2):
        wavelength = 2 * math.pi * config["rope_theta"] ** (i / config["head_dim"])
        smooth = min(max((old / wavelength - low) / (high - low), 0), 1)
        factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return tuple(factors)


ROPE_FACTORS = WIDE | {"rope_scaling": LLAMA3_ROPE}
GGUF_CASES = gguf_cases("llama", BLOCKS) + [
    GgufCase("llama_gguf_rope_freqs", ROPE_FACTORS, rope_factors=llama3_factors(ROPE_FACTORS)),
    GgufCase("llama_gguf_rope_linear", BLOCKS | {"rope_scaling": {"type": "linear", "factor": 4.0}}, types=("Q4_1",),
             metadata={"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
]
