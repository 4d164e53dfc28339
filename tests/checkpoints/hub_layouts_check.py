"""What the libraries make of the tensors that hub_layouts_test.cpp wrote, against what it decodes: the same values, bit for bit.

usage: hub_layouts_check.py FOLDER   reads FOLDER/<case>.safetensors and FOLDER/<case>.values (float32, 136 x 384)
"""
import pathlib
import sys

import numpy as np
from safetensors.torch import load_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from hub_forms import decoded

ROWS, COLUMNS = 136, 384
folder = pathlib.Path(sys.argv[1])


def compressed(form, **weights):
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}


def int4(group, symmetric=True):
    return compressed("pack-quantized", num_bits=4, type="int", strategy="group", group_size=group, symmetric=symmetric)


CONFIGS = {
    "int4_32": int4(32), "int4_64": int4(64), "int4_128": int4(128), "int4_zero": int4(64, symmetric=False),
    "int8": compressed("int-quantized", num_bits=8, type="int", strategy="channel"),
    "fp8": compressed("float-quantized", num_bits=8, type="float", strategy="channel"),
    "fp8_squares": compressed("float-quantized", num_bits=8, type="float", strategy="block", block_structure=[128, 128]),
    "nvfp4": compressed("nvfp4-pack-quantized", num_bits=4, type="float", strategy="tensor_group", group_size=16),
    "mxfp4": compressed("mxfp4-pack-quantized", num_bits=4, type="float", strategy="group", group_size=32),
    "gptq": {"quant_method": "gptq"}, "awq": {"quant_method": "awq"}, "nf4": {"quant_method": "bitsandbytes"},
}
for name, config in CONFIGS.items():
    tensors = {key.removeprefix("layer.linear."): value for key, value in load_file(folder / f"{name}.safetensors").items()}
    expected = np.fromfile(folder / f"{name}.values", dtype=np.float32).reshape(ROWS, COLUMNS)
    values = decoded(tensors, config).numpy()
    assert values.shape == expected.shape, (name, values.shape)
    assert np.array_equal(values, expected), (name, np.abs(values - expected).max(), np.abs(expected).max())
assert len(list(folder.glob("*.safetensors"))) == len(CONFIGS)
