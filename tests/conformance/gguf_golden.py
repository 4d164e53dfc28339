"""Tiny GGUF models whose blocks graft must read, with goldens from transformers on the dequantised weights.

gguf-py quantises the legacy types; for K-quants, which it can only read, random blocks are as good: they decode to
known numbers. The writer here is written from the format's description and shares nothing with graft's.
"""
import copy
import pathlib
import shutil

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize
from transformers import AutoConfig, AutoModelForCausalLM

from case import GgufCase
from golden import attach_adapter, eager_experts, generator_of, randomise, write_goldens

K_QUANTS = {"Q4_K", "Q5_K", "Q6_K"}
# Hub name (below model.layers.N) -> GGUF name (below blk.N).
LAYER_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate": "ffn_gate_inp", "mlp.router": "ffn_gate_inp", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
EXPERT_NAMES = {"gate": "ffn_gate_exps", "up": "ffn_up_exps", "down_proj": "ffn_down_exps"}    # [experts, out, in]
ARCHITECTURES = {"mixtral": "llama", "qwen3_moe": "qwen3moe", "gpt_oss": "gpt-oss"}                                   # else the model_type
TOP_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(hub_name: str, gpt_oss: bool = False) -> str:
    if hub_name.endswith("self_attn.sinks"):
        return f"blk.{hub_name.split('.')[2]}.attn_sinks.weight"
    stem, kind = hub_name.rsplit(".", 1)
    if stem in TOP_NAMES:
        return f"{TOP_NAMES[stem]}.{kind}"
    _, _, layer, rest = stem.split(".", 3)
    name = "post_attention_norm" if gpt_oss and rest == "post_attention_layernorm" else LAYER_NAMES[rest]
    return f"blk.{layer}.{name}.{kind}"


def interleave_rope_rows(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """llama only: ggml rotates neighbouring rows where the hub rotates row i with row i + head_dim/2."""
    shape = weight.shape
    return weight.reshape(num_heads, 2, shape[0] // num_heads // 2, -1).swapaxes(1, 2).reshape(shape)


def separate_rope_rows(weight: np.ndarray, num_heads: int) -> np.ndarray:
    shape = weight.shape
    return weight.reshape(num_heads, shape[0] // num_heads // 2, 2, -1).swapaxes(1, 2).reshape(shape)


def random_k_blocks(type_name: str, shape: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Bytes of [rows, columns] with scales such that values are near zero mean and of the size of a trained weight."""
    elements, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type_name]]
    blocks = shape[0] * shape[1] // elements
    raw = random.integers(0, 256, (blocks, block_bytes), dtype=np.uint8)
    spread = random.uniform(0.5, 1.5, (blocks, 1)) / shape[1] ** 0.5
    half = lambda values: values.astype(np.float16).view(np.uint8)
    if type_name == "Q6_K":                      # w = d * scale(int8) * (q - 32)
        raw[:, 208:210] = half(spread / 1400)
    else:                                        # w = d * scale * q - dmin * min, all of them >= 0
        largest = 15 if type_name == "Q4_K" else 31
        raw[:, 0:2] = half(spread / (15 * largest))
        raw[:, 2:4] = half(spread / (15 * largest) * largest / 2)
    return raw.reshape(shape[0], -1)


def encode(weight: np.ndarray, type_name: str, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(bytes as stored, the float32 values they decode to)."""
    kind = gguf.GGMLQuantizationType[type_name]
    if type_name in K_QUANTS:
        stored = random_k_blocks(type_name, weight.shape, random)
    elif type_name == "F32":
        return weight, weight
    elif type_name == "F16":
        stored = weight.astype(np.float16)
        return stored, stored.astype(np.float32)
    else:
        stored = quantize(weight, kind)
    return stored, dequantize(stored, kind).astype(np.float32)


def write_metadata(writer: gguf.GGUFWriter, case: GgufCase) -> None:
    config = case.config
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim", config["hidden_size"] // heads)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"] if config.get("rope_parameters") else config["rope_theta"])
    if config["model_type"] == "gpt_oss":
        writer.add_sliding_window(config["sliding_window"])
    writer.add_rope_dimension_count(head_dim)
    if "head_dim" in config:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    experts = config.get("num_experts") or config.get("num_local_experts")
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config.get("moe_intermediate_size", config["intermediate_size"]))
    writer.add_vocab_size(config["vocab_size"])
    writer.add_string("tokenizer.ggml.model", "none")
    for key, value in case.metadata.items():
        add = writer.add_string if isinstance(value, str) else writer.add_float32
        add(f"{writer.arch}.{key}", value)


def encode_experts(weight: np.ndarray, type_name: str, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The same of [experts, out, in]: one expert after another."""
    stored, values = encode(weight.reshape(-1, weight.shape[-1]), type_name, random)
    return stored.reshape(*weight.shape[:2], -1), values.reshape(weight.shape)


def write_gguf(case: GgufCase, path: pathlib.Path) -> torch.nn.Module:
    """Writes the file; returns the transformers model that holds exactly the stored weights."""
    config = AutoConfig.for_model(**copy.deepcopy(case.config))   # it writes into nested dicts
    model = eager_experts(AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")).eval()
    randomise(model, generator_of(case.name))
    random = np.random.default_rng(len(case.name))
    model_type = case.config["model_type"]
    writer = gguf.GGUFWriter(str(path), ARCHITECTURES.get(model_type, model_type))
    write_metadata(writer, case)
    if case.rope_factors:
        writer.add_tensor("rope_freqs.weight", np.array(case.rope_factors, dtype=np.float32))
    matrices = 0
    for hub_name, parameter in model.named_parameters():
        weight = parameter.detach().numpy()
        if ".experts." in hub_name:    # gate and up stand in one parameter, and may be of different types in the file
            in_turn = model_type == "gpt_oss"    # there with their inputs before their outputs, and biases
            is_bias = hub_name.endswith("_bias")
            whole = weight.swapaxes(1, 2) if in_turn and not is_bias else weight
            halves = (whole[:, 0::2], whole[:, 1::2]) if in_turn else np.split(whole, 2, axis=1)
            parts = dict(zip(("gate", "up"), halves)) if "gate_up" in hub_name else {"down_proj": whole}
            decoded = []
            for part, values in parts.items():
                type_name = "F32" if is_bias else case.types[matrices % len(case.types)]
                matrices += not is_bias
                values = np.ascontiguousarray(values)
                stored, values = (values, values) if is_bias else encode_experts(values, type_name, random)
                raw_type = None if stored.dtype in (np.float32, np.float16) else gguf.GGMLQuantizationType[type_name]
                writer.add_tensor(f"blk.{hub_name.split('.')[2]}.{EXPERT_NAMES[part]}.{'bias' if is_bias else 'weight'}", stored, raw_dtype=raw_type)
                decoded.append(values)
            together = np.stack(decoded, axis=2).reshape(whole.shape) if in_turn and len(decoded) == 2 else np.concatenate(decoded, axis=1)
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(together.swapaxes(1, 2) if in_turn and not is_bias else together)))
            continue
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(hub_name.split(".")[-2], 0)
        permuted = model_type in ("llama", "mixtral") and heads
        type_name = "F32"
        if weight.ndim == 2 and not hub_name.endswith(("mlp.gate.weight", "mlp.router.weight")):
            is_layer = hub_name.startswith("model.layers")
            type_name = case.types[matrices % len(case.types)] if is_layer else case.head_type or case.types[0]
            matrices += is_layer
        stored, values = encode(interleave_rope_rows(weight, heads) if permuted else weight, type_name, random)
        raw_type = None if stored.dtype in (np.float32, np.float16) else gguf.GGMLQuantizationType[type_name]
        writer.add_tensor(gguf_name(hub_name, model_type == "gpt_oss"), stored, raw_dtype=raw_type)
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(separate_rope_rows(values, heads) if permuted else values)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def make_gguf_case(case: GgufCase, out: pathlib.Path) -> None:
    """out/<case>/: model.gguf, adapter/, golden.safetensors, documents.safetensors."""
    folder = out / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = write_gguf(case, folder / "model.gguf")
    write_goldens(attach_adapter(model, case, folder / "adapter"), case, folder)
