#!/usr/bin/env python3
"""Writes gguf_mixes.txt, which gguf_mixes_test.cpp reads: the type that llama.cpp's llama_model_quantize gives to each tensor of models of many shapes.

usage: gguf_mixes_golden.py LIBLLAMA.so     a build of llama.cpp's library; xllamacpp's has no llama_model_quantize. Recorded with that of llama-cpp-python 0.3.36.

For each model a line with its facts, a line for each kind of tensor (* stands for the layer) with its shape, outermost first, and its layers, and then, for
each form, kinds and their types in order of the layers: Q6_K*2 is twice Q6_K. A form with + was quantised with an importance matrix: rows that differ.
"""
import ctypes
import itertools
import pathlib
import sys
import tempfile

import gguf
import numpy as np

FORMS = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16,
         "Q5_K_M": 17, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30, "MXFP4": 38, "F16": 1}
OUT = pathlib.Path(__file__).with_name("gguf_mixes.txt")


class Importance(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("data", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class Parameters(ctypes.Structure):
    _fields_ = [("nthread", ctypes.c_int32), ("ftype", ctypes.c_int32), ("output_tensor_type", ctypes.c_int32), ("token_embedding_type", ctypes.c_int32),
                ("allow_requantize", ctypes.c_bool), ("quantize_output_tensor", ctypes.c_bool), ("only_copy", ctypes.c_bool), ("pure", ctypes.c_bool),
                ("keep_split", ctypes.c_bool), ("dry_run", ctypes.c_bool), ("imatrix", ctypes.c_void_p), ("kv_overrides", ctypes.c_void_p),
                ("tt_overrides", ctypes.c_void_p), ("prune_layers", ctypes.c_void_p), ("max_buf_size", ctypes.c_size_t)]


def dense(layers, width=256, hidden=512, kv=None, head=True):
    every = range(layers)
    kv = kv or width
    kinds = {"token_embd.weight": ((64, width), None), "output_norm.weight": ((width,), None), "blk.*.attn_norm.weight": ((width,), every),
             "blk.*.attn_q.weight": ((width, width), every), "blk.*.attn_k.weight": ((kv, width), every), "blk.*.attn_v.weight": ((kv, width), every),
             "blk.*.attn_output.weight": ((width, width), every), "blk.*.ffn_gate.weight": ((hidden, width), every), "blk.*.ffn_up.weight": ((hidden, width), every),
             "blk.*.ffn_down.weight": ((width, hidden), every)}
    if head:
        kinds["output.weight"] = ((64, width), None)
    return kinds


def experts(layers, count, hidden=256, first=0, **of_dense):
    kinds = dense(layers, **of_dense)
    some, width = range(first, layers), kinds["token_embd.weight"][0][1]
    for part in ("gate", "up", "down"):
        shape, _ = kinds.pop(f"blk.*.ffn_{part}.weight")
        if first:
            kinds[f"blk.*.ffn_{part}.weight"] = shape, range(first)
        kinds[f"blk.*.ffn_{part}_exps.weight"] = (count, *((width, hidden) if part == "down" else (hidden, width))), some
    kinds["blk.*.ffn_gate_inp.weight"] = (count, width), some
    return kinds


def joined(layers):  # query, key and value in one, with biases
    kinds = dense(layers, head=False)
    for part in ("attn_q", "attn_k", "attn_v", "ffn_gate"):
        del kinds[f"blk.*.{part}.weight"]
    return kinds | {"blk.*.attn_qkv.weight": ((768, 256), range(layers)), "blk.*.attn_qkv.bias": ((768,), range(layers)), "position_embd.weight": ((32, 256), None)}


def latent(layers, count):
    kinds = experts(layers, count, first=1)
    for part in ("attn_q", "attn_k", "attn_v"):
        del kinds[f"blk.*.{part}.weight"]
    every = range(layers)
    return kinds | {"blk.*.attn_q_a.weight": ((256, 256), every), "blk.*.attn_q_b.weight": ((512, 256), every), "blk.*.attn_kv_a_mqa.weight": ((320, 256), every),
                    "blk.*.attn_k_b.weight": ((4, 256, 64), every), "blk.*.attn_v_b.weight": ((4, 64, 256), every), "blk.*.ffn_down_shexp.weight": ((256, 256), range(1, layers))}


def hybrid(layers):  # every fourth layer has attention
    kinds = experts(layers, 16)
    full = range(3, layers, 4)
    linear = [layer for layer in range(layers) if layer not in full]
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        kinds[f"blk.*.{part}.weight"] = kinds[f"blk.*.{part}.weight"][0], full
    return kinds | {"blk.*.attn_gate.weight": ((256, 256), linear), "blk.*.ssm_out.weight": ((256, 256), linear), "blk.*.ssm_conv1d.weight": ((256, 4), linear),
                    "blk.*.ffn_gate_inp_shexp.weight": ((1, 256), range(layers))}


# name -> (architecture, heads, key-value heads, experts, kinds of tensors, further metadata)
MODELS = {
    "llama": ("llama", 8, 8, 0, dense(16), {}),
    "llama_grouped": ("llama", 8, 2, 0, dense(20, kv=64, head=False), {}),
    "smollm2": ("llama", 9, 3, 0, dense(30, width=576, hidden=1536, kv=192, head=False), {}),
    "odd_columns": ("llama", 4, 4, 0, dense(3, width=96, hidden=72), {}),
    "llama_70b": ("llama", 8, 2, 0, dense(80, kv=64), {}),
    "llama_65b": ("llama", 8, 8, 0, dense(80), {}),
    "qwen2_72b": ("qwen2", 8, 2, 0, dense(80, kv=64), {}),
    "qwen3": ("qwen3", 16, 8, 0, dense(28, kv=128, head=False), {}),
    "mixtral": ("llama", 8, 2, 8, experts(32, 8, kv=64), {}),
    "qwen3moe": ("qwen3moe", 8, 2, 16, experts(24, 16, hidden=96, kv=64), {"expert_feed_forward_length": 96}),
    "gpt2": ("gpt2", 4, 4, 0, joined(12), {}),
    "deepseek2": ("deepseek2", 4, 1, 8, latent(9, 8), {
        "leading_dense_block_count": 1, "attention.kv_lora_rank": 256, "attention.q_lora_rank": 256, "expert_feed_forward_length": 256, "expert_shared_count": 1,
        "attention.key_length_mla": 128, "attention.value_length_mla": 64, "attention.key_length": 320, "attention.value_length": 256}),
    "qwen3next": ("qwen3next", 8, 2, 16, hybrid(12), {
        "expert_feed_forward_length": 256, "expert_shared_feed_forward_length": 256, "ssm.conv_kernel": 4, "ssm.inner_size": 256, "ssm.state_size": 64,
        "ssm.time_step_rank": 4, "ssm.group_count": 2, "full_attention_interval": 4}),
}


def write_model(path, architecture, heads, kv_heads, num_experts, kinds, further):
    writer = gguf.GGUFWriter(str(path), architecture)
    layers = 1 + max(layer for _, of in kinds.values() if of for layer in of)
    width = kinds["token_embd.weight"][0][1]
    numbers = {"block_count": layers, "context_length": 64, "embedding_length": width, "feed_forward_length": 512, "attention.head_count": heads,
               "attention.head_count_kv": kv_heads, "vocab_size": 64, "expert_count": num_experts, "expert_used_count": min(2, num_experts)} | further
    for key, value in numbers.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    for key in ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"):
        writer.add_float32(f"{architecture}.{key}", 1e-5)
    names = [(kind.replace("*", str(layer)), shape) for kind, (shape, of) in kinds.items() for layer in (of if of is not None else [None])]
    for name, shape in names:
        writer.add_tensor(name, np.zeros(shape, dtype=np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return names


def quantised(llama, source, names, form, with_importance, work):
    parameters = llama.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = FORMS[form], 1
    matrices = [np.ones((shape[0] if len(shape) == 3 else 1) * shape[-1], dtype=np.float32) for _, shape in names]
    entries = (Importance * (len(names) + 1))(*(Importance(name.encode(), matrix.ctypes.data, matrix.size) for (name, _), matrix in zip(names, matrices)), Importance())
    if with_importance:
        parameters.imatrix = ctypes.cast(entries, ctypes.c_void_p)
    out = work / "out.gguf"
    status = llama.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(parameters))
    assert status == 0, (source, form)
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(str(out)).tensors}


def rows_of(types, kinds):
    """Kinds with the same types, joined by commas, and these types in runs."""
    rows = {}
    for kind, (_, of) in kinds.items():
        in_order = [types[kind.replace("*", str(layer))] for layer in (of if of is not None else [None])]
        runs = " ".join(f"{name}*{len(list(run))}" for name, run in itertools.groupby(in_order))
        rows.setdefault(runs, []).append(kind)
    return [(",".join(of_runs), runs) for runs, of_runs in rows.items()]


def main():
    llama = ctypes.CDLL(sys.argv[1])
    llama.llama_model_quantize_default_params.restype = Parameters
    llama.llama_model_quantize.restype = ctypes.c_uint32
    silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda level, text, _: sys.stderr.write(text.decode()) if level >= 4 else None)
    llama.llama_log_set(silent, None)
    llama.llama_backend_init()
    lines = ["# Written by gguf_mixes_golden.py."]
    with tempfile.TemporaryDirectory() as folder:
        for model, (architecture, heads, kv_heads, num_experts, kinds, further) in MODELS.items():
            source = pathlib.Path(folder) / "model.gguf"
            names = write_model(source, architecture, heads, kv_heads, num_experts, kinds, further)
            layers = 1 + max(layer for _, of in kinds.values() if of for layer in of)
            lines.append(f"model {model} {architecture} layers {layers} experts {num_experts} heads_per_group {heads // kv_heads} tied {int('output.weight' not in kinds)}")
            for kind, (shape, of) in kinds.items():
                lines.append(f"tensor {kind} {'x'.join(map(str, shape))} {','.join(map(str, of)) if of is not None else '-'}")
            for form in FORMS:
                plain, weighted = (rows_of(quantised(llama, source, names, form, with_importance, pathlib.Path(folder)), kinds) for with_importance in (False, True))
                lines += [f"{form} {' '.join(row)}" for row in plain]
                lines += [f"{form}+ {' '.join(row)}" for row in weighted if row not in plain]
            print(model, file=sys.stderr)
    OUT.write_text("\n".join(lines) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
