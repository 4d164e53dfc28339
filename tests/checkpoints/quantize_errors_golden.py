"""What llama.cpp makes of weights with and without an importance matrix, for quantize_errors_test.cpp.

usage: quantize_errors_golden.py MODEL.gguf FOLDER
FOLDER/sets.txt: a line for each set of rows, its name, rows and columns. FOLDER/<set>.f32, <set>.importance (float32, one for each column) and, for each
form, <set>.<form>.ggml and <set>.<form>.weighted: bytes of ggml_quantize_chunk without and with that importance.
"""
import ctypes
import glob
import os
import pathlib
import sys

import gguf
import numpy as np
import xllamacpp

FORMS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"]
# Rows of SmolLM2's tensors; of those with 576 columns four rows make one of 2304, which is whole blocks of 256.
TENSORS = {"blk.0.attn_v": 192, "blk.3.attn_output": 64, "blk.12.attn_q": 64, "blk.20.ffn_down": 96, "blk.29.ffn_gate": 64, "token_embd": 128}

model, folder = sys.argv[1], pathlib.Path(sys.argv[2])
random = np.random.default_rng(5)
sets = {}
for tensor in gguf.GGUFReader(model).tensors:
    name = tensor.name.removesuffix(".weight")
    if name not in TENSORS:
        continue
    weights = gguf.dequantize(tensor.data[:TENSORS[name]], tensor.tensor_type)
    importance = np.exp(1.5 * random.standard_normal(weights.shape[1]))     # a few columns carry most, as activations do
    if weights.shape[1] % 256 != 0:
        weights, importance = weights.reshape(len(weights) // 4, -1), np.tile(importance, 4)
    sets[name] = weights, importance
assert len(sets) == len(TENSORS)
gauss = random.standard_normal((64, 1024)) * 0.02
for name, weights in {
        "gauss": gauss, "student": random.standard_t(4, gauss.shape) * 0.02, "positive": np.abs(gauss), "outliers": np.where(random.random(gauss.shape) < 0.004, 0.5, gauss),
        "magnitudes": gauss * 10.0 ** random.integers(-4, 3, (64, 1))}.items():
    importance = random.chisquare(2, 1024)
    importance[random.random(1024) < 0.1] = 0 if name == "student" else 1e-3
    sets[name] = weights, importance

library = ctypes.CDLL(glob.glob(os.path.join(os.path.dirname(xllamacpp.__file__), "*.so"))[0])
library.ggml_quantize_chunk.restype = ctypes.c_size_t
library.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
with open(folder / "sets.txt", "w", encoding="ascii") as index:
    for name, (weights, importance) in sets.items():
        weights, importance = (np.ascontiguousarray(values, dtype=np.float32) for values in (weights, importance))
        weights.tofile(folder / f"{name}.f32")
        importance.tofile(folder / f"{name}.importance")
        index.write(f"{name} {weights.shape[0]} {weights.shape[1]}\n")
        for form in FORMS:
            kind = gguf.GGMLQuantizationType[form]
            elements, size = gguf.GGML_QUANT_SIZES[kind]
            for ending, matrix in (("ggml", None), ("weighted", importance.ctypes.data)):
                out = np.zeros(weights.size // elements * size, dtype=np.uint8)
                written = library.ggml_quantize_chunk(int(kind), weights.ctypes.data, out.ctypes.data, 0, *weights.shape, matrix)
                assert written == out.size, (name, form, written, out.size)
                out.tofile(folder / f"{name}.{form}.{ending}")
