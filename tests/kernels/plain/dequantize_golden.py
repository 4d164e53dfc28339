"""Random blocks of every type and what gguf-py (and llama.cpp, to the same bits), numpy and torch make of them, for dequantize_test.cpp.

usage: dequantize_golden.py FOLDER   writes FOLDER/<type>.blocks and FOLDER/<type>.f32
"""
import ctypes
import glob
import os
import pathlib
import statistics
import sys

import gguf
import numpy as np
import xllamacpp

NUM_BLOCKS = 67  # not a multiple of any vector width or of the chunk that the bfloat16 path works in

folder = pathlib.Path(sys.argv[1])
random = np.random.default_rng(7)
# Offsets of the half-precision scales inside a block: they must be finite and of all magnitudes, subnormals included.
HALF_OFFSETS = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "MXFP4": [],     # its scale is a byte, any value
    "IQ4_NL": [0], "IQ4_XS": [0],
}
llama_cpp = ctypes.CDLL(glob.glob(os.path.join(os.path.dirname(xllamacpp.__file__), "*.so"))[0])
for name, offsets in HALF_OFFSETS.items():
    kind = gguf.GGMLQuantizationType[name]
    blocks = random.integers(0, 256, (NUM_BLOCKS, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    for offset in offsets:
        scales = (random.standard_normal(NUM_BLOCKS) * 2.0 ** random.integers(-24, 8, NUM_BLOCKS)).astype(np.float16)
        blocks[:, offset:offset + 2] = scales.view(np.uint8).reshape(NUM_BLOCKS, 2)
    values = gguf.dequantize(blocks.reshape(1, -1), kind).astype(np.float32)
    of_llama_cpp = np.empty_like(values)
    dequantize_row = getattr(llama_cpp, "dequantize_row_" + (name.lower() if name[-2:] != "_K" else name[:-1].lower() + "K"))
    dequantize_row(ctypes.c_void_p(blocks.ctypes.data), ctypes.c_void_p(of_llama_cpp.ctypes.data), ctypes.c_int64(values.size))
    assert np.array_equal(of_llama_cpp.view(np.uint32), values.view(np.uint32)), name
    (folder / f"{name}.blocks").write_bytes(blocks.tobytes())
    (folder / f"{name}.f32").write_bytes(values.tobytes())

# graft's own blocks (kernels/quantized/block_layouts.h): by their formulas, in double, rounded once.
# NF4 of QLoRA: 7 negative and 8 positive quantiles of a normal distribution around a zero, scaled to [-1, 1]; as bitsandbytes has them, some one bit off.
NORMAL_FLOAT_4 = np.array([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
                           -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
                           0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0], dtype=np.float32)
quantile = statistics.NormalDist().inv_cdf
positive = [quantile(p) for p in np.linspace(0.9677083, 0.5, 9)[:-1]]
negative = [-quantile(p) for p in np.linspace(0.9677083, 0.5, 8)[:-1]]
assert np.abs(np.array(sorted([*negative, 0.0, *positive])) / max(positive) - NORMAL_FLOAT_4).max() < 2e-7


def write_own(name, header, codes, weights):
    """codes: [blocks, elements] of four bits, packed as in ggml's blocks of 32; header: [blocks, bytes]."""
    halves = codes.reshape(NUM_BLOCKS, -1, 2, 16).astype(np.uint8)
    nibbles = (halves[:, :, 0] | halves[:, :, 1] << 4).reshape(NUM_BLOCKS, -1)
    (folder / f"{name}.blocks").write_bytes(np.hstack([header, nibbles]).tobytes())
    (folder / f"{name}.f32").write_bytes(weights.astype(np.float32).tobytes())


def random_scales():
    return (random.standard_normal(NUM_BLOCKS) * 2.0 ** random.integers(-30, 8, NUM_BLOCKS)).astype(np.float32)


def bytes_of(numbers):
    return numbers.view(np.uint8).reshape(NUM_BLOCKS, -1)


scales, codes = random_scales(), random.integers(0, 16, (NUM_BLOCKS, 64))
write_own("NF4", bytes_of(scales), codes, NORMAL_FLOAT_4.astype(np.float64)[codes] * scales[:, None].astype(np.float64))
for group in (32, 64, 128):
    codes, zeros = random.integers(0, 16, (NUM_BLOCKS, group)), random.integers(0, 16, NUM_BLOCKS)
    bits = random_scales().view(np.uint32) & np.uint32(0xffff0000)
    scales = bits.view(np.float32).astype(np.float64)
    write_own(f"I4_{group}", bytes_of((bits >> np.uint32(16)).astype(np.uint16)), codes, (codes - 8.0) * scales[:, None])
    halves = random_scales().astype(np.float16).astype(np.float32)      # float16's scales have bits below bfloat16's
    write_own(f"I4_{group}_ZERO", bytes_of(halves.view(np.uint32) | zeros.astype(np.uint32)), codes, (codes - zeros[:, None]) * halves[:, None].astype(np.float64))

scales, codes = random_scales(), random.integers(-128, 128, (NUM_BLOCKS, 64)).astype(np.int8)
(folder / "I8_SCALED.blocks").write_bytes(np.hstack([bytes_of(scales), codes.view(np.uint8)]).tobytes())
(folder / "I8_SCALED.f32").write_bytes((codes.astype(np.float64) * scales[:, None]).astype(np.float32).tobytes())
magnitudes = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
scales, codes = np.stack([random_scales(), random_scales()], axis=1), random.integers(0, 16, (NUM_BLOCKS, 32))
values = (np.concatenate([magnitudes, -magnitudes]) + 0.0)[codes].reshape(NUM_BLOCKS, 2, 16) * scales[:, :, None].astype(np.float64)     # no negative zero: as ggml
write_own("NVFP4", bytes_of(scales), codes, values)

every_16_bits = np.arange(65536, dtype=np.uint16)
(folder / "F16.blocks").write_bytes(every_16_bits.tobytes())
(folder / "F16.f32").write_bytes(every_16_bits.view(np.float16).astype(np.float32).tobytes())
(folder / "BF16.blocks").write_bytes(every_16_bits.tobytes())
(folder / "BF16.f32").write_bytes((every_16_bits.astype(np.uint32) << 16).tobytes())

import torch  # noqa: E402  (slow: last)

for name, dtype in [("F8_E4M3", torch.float8_e4m3fn), ("F8_E5M2", torch.float8_e5m2)]:
    codes = torch.arange(256, dtype=torch.uint8)
    (folder / f"{name}.blocks").write_bytes(codes.numpy().tobytes())
    (folder / f"{name}.f32").write_bytes(codes.view(dtype).float().numpy().tobytes())

codes = random.integers(0, 256, (NUM_BLOCKS, 64), dtype=np.uint8)
codes[:4] = np.arange(256, dtype=np.uint8).reshape(4, 64)      # every one
scales = random_scales()
(folder / "F8_E4M3_SCALED.blocks").write_bytes(np.hstack([bytes_of(scales), codes]).tobytes())
values = torch.from_numpy(codes).view(torch.float8_e4m3fn).double() * torch.from_numpy(scales).double()[:, None]
(folder / "F8_E4M3_SCALED.f32").write_bytes(values.float().numpy().tobytes())
