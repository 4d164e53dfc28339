"""What ggml makes of rows of many kinds, for quantize_test.cpp.

usage: quantize_golden.py FOLDER   writes FOLDER/rows.f32 ([R, 512] float32), FOLDER/<type>.ggml from llama.cpp's own
ggml_quantize_chunk (exported by the xllamacpp wheel) and, for the types that gguf-py quantises, FOLDER/<type>.gguf_py
"""
import ctypes
import glob
import os
import pathlib
import sys

import gguf
import numpy as np
import xllamacpp

COLUMNS = 512
folder = pathlib.Path(sys.argv[1])
random = np.random.default_rng(11)
gauss = random.standard_normal((64, COLUMNS)) * 0.02
kinds = [
    gauss,
    random.standard_t(2, (48, COLUMNS)) * 0.02,                     # heavy tails
    gauss[:24] * (10.0 ** random.integers(-12, 5, (24, 1))),        # all magnitudes
    gauss[:16] * (10.0 ** random.integers(-6, 1, (16, COLUMNS))),   # all magnitudes inside a row: sub-block scales of zero
    np.abs(gauss[:16]), -np.abs(gauss[:16]),                        # one sign
    gauss[:16] + 1.0, gauss[:16] - 1.0,                             # far from zero
    np.zeros((4, COLUMNS)), np.full((4, COLUMNS), 0.37), np.full((4, COLUMNS), -2.5),
    random.integers(-8, 8, (32, COLUMNS)) * 0.125,                  # on a grid: ties
    random.choice([-1.0, 0.0, 1.0], (16, COLUMNS)),
    np.where(random.random((32, COLUMNS)) < 0.01, 50.0, gauss[:32]),  # outliers
    np.where(random.random((16, COLUMNS)) < 0.9, 0.0, gauss[:16]),    # mostly zero
    np.repeat(gauss[:8, :32], 16, axis=1),
]
rows = np.ascontiguousarray(np.concatenate(kinds).astype(np.float32))
rows.tofile(folder / "rows.f32")

library = ctypes.CDLL(glob.glob(os.path.join(os.path.dirname(xllamacpp.__file__), "*.so"))[0])
library.ggml_quantize_chunk.restype = ctypes.c_size_t
library.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
for name in ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]:
    kind = gguf.GGMLQuantizationType[name]
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    out = np.zeros(rows.size // elements * size, dtype=np.uint8)
    written = library.ggml_quantize_chunk(int(kind), rows.ctypes.data, out.ctypes.data, 0, len(rows), COLUMNS, None)
    assert written == out.size, (name, written, out.size)
    out.tofile(folder / f"{name}.ggml")
    if name in ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        with np.errstate(all="ignore"):
            gguf.quantize(rows, kind).tofile(folder / f"{name}.gguf_py")
