"""Random blocks of every type and what gguf-py, numpy and torch make of them, for dequantize_test.cpp.

usage: dequantize_golden.py FOLDER   writes FOLDER/<type>.blocks and FOLDER/<type>.f32
"""
import pathlib
import sys

import gguf
import numpy as np

NUM_BLOCKS = 67  # not a multiple of any vector width or of the chunk that the bfloat16 path works in

folder = pathlib.Path(sys.argv[1])
random = np.random.default_rng(7)
# Offsets of the half-precision scales inside a block: they must be finite and of all magnitudes, subnormals included.
HALF_OFFSETS = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "MXFP4": [],     # its scale is a byte, any value
}
for name, offsets in HALF_OFFSETS.items():
    kind = gguf.GGMLQuantizationType[name]
    blocks = random.integers(0, 256, (NUM_BLOCKS, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    for offset in offsets:
        scales = (random.standard_normal(NUM_BLOCKS) * 2.0 ** random.integers(-24, 8, NUM_BLOCKS)).astype(np.float16)
        blocks[:, offset:offset + 2] = scales.view(np.uint8).reshape(NUM_BLOCKS, 2)
    values = gguf.dequantize(blocks.reshape(1, -1), kind).astype(np.float32)
    (folder / f"{name}.blocks").write_bytes(blocks.tobytes())
    (folder / f"{name}.f32").write_bytes(values.tobytes())

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
