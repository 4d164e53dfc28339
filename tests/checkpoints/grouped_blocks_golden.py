"""INT4 weights as compressed-tensors packs them, and what it makes of them, for grouped_blocks_test.cpp.

usage: grouped_blocks_golden.py FOLDER
writes FOLDER/<group>_<symmetric|half|zero>.{words,scales,zeros,values}: int32, float32, int32, float32, for a matrix of 13 x 256
"""
import importlib.util
import pathlib
import sys
import sysconfig

import torch

# The one file: the package brings transformers with it.
path = pathlib.Path(sysconfig.get_paths()["purelib"]) / "compressed_tensors/compressors/pack_quantized/helpers.py"
spec = importlib.util.spec_from_file_location("pack_quantized_helpers", path)
helpers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helpers)
pack_to_int32 = helpers.pack_to_int32

ROWS, COLUMNS = 13, 256
folder = pathlib.Path(sys.argv[1])
generator = torch.Generator().manual_seed(5)
for group in (32, 64, 128):
    for kind, scale_type in (("symmetric", torch.bfloat16), ("half", torch.float16), ("zero", torch.bfloat16)):
        codes = torch.randint(-8, 8, (ROWS, COLUMNS), generator=generator, dtype=torch.int8)
        scales = (torch.randn(ROWS, COLUMNS // group, generator=generator) * 0.01).to(scale_type).float()
        zeros = torch.randint(-8, 8, scales.shape, generator=generator, dtype=torch.int8) if kind == "zero" else torch.zeros(scales.shape, dtype=torch.int8)
        values = (codes.double() - zeros.double().repeat_interleave(group, 1)) * scales.double().repeat_interleave(group, 1)
        name = folder / f"{group}_{kind}"
        name.with_suffix(".words").write_bytes(pack_to_int32(codes, 4).numpy().tobytes())
        name.with_suffix(".scales").write_bytes(scales.numpy().tobytes())
        name.with_suffix(".zeros").write_bytes(pack_to_int32(zeros, 4, packed_dim=0).contiguous().numpy().tobytes() if kind == "zero" else b"")
        name.with_suffix(".values").write_bytes(values.float().numpy().tobytes())
