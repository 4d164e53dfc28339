"""What the libraries make of the tensors that hub_layouts_test.cpp wrote, against what it decodes: the same values, bit for bit.

usage: hub_layouts_check.py FOLDER   reads FOLDER/<case>.safetensors and FOLDER/<case>.values (float32, 136 x 384)

compressed-tensors decodes its own forms and bitsandbytes NF4. GPTQ and AWQ have no library for a CPU that installs here: their layouts are unpacked as AutoGPTQ
and AutoAWQ document them (and vLLM loads them: tests/engines).
"""
import pathlib
import sys

import bitsandbytes.functional
import numpy as np
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import load_file

ROWS, COLUMNS = 136, 384
folder = pathlib.Path(sys.argv[1])


def arguments(**more):
    return QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**more))


def int4(group, symmetric=True):
    return "pack-quantized", arguments(num_bits=4, type="int", strategy="group", group_size=group, symmetric=symmetric)


COMPRESSED = {
    "int4_32": int4(32), "int4_64": int4(64), "int4_128": int4(128), "int4_zero": int4(64, symmetric=False),
    "int8": ("int-quantized", arguments(num_bits=8, type="int", strategy="channel")),
    "fp8": ("float-quantized", arguments(num_bits=8, type="float", strategy="channel")),
    "fp8_squares": ("float-quantized", arguments(num_bits=8, type="float", strategy="block", block_structure=[128, 128])),
    "nvfp4": ("nvfp4-pack-quantized", arguments(num_bits=4, type="float", strategy="tensor_group", group_size=16)),
    "mxfp4": ("mxfp4-pack-quantized", arguments(num_bits=4, type="float", strategy="group", group_size=32)),
}


def gptq(tensors):
    shifts = torch.arange(8) * 4
    codes = (tensors["qweight"][:, None, :] >> shifts[None, :, None] & 15).reshape(COLUMNS, ROWS)
    zeros = (tensors["qzeros"][:, :, None] >> shifts & 15).reshape(-1, ROWS) + 1
    group = tensors["g_idx"].long()
    return ((codes - zeros[group]) * tensors["scales"].float()[group]).T


def awq(tensors):
    order = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7]) * 4      # AutoAWQ's AWQ_REVERSE_ORDER
    codes, zeros = ((tensors[name][:, :, None] >> order & 15).reshape(-1, ROWS) for name in ("qweight", "qzeros"))
    group = torch.arange(COLUMNS) // (COLUMNS // zeros.shape[0])
    return ((codes - zeros[group]) * tensors["scales"].float()[group]).T


def nf4(tensors):
    state = bitsandbytes.functional.QuantState.from_dict({name.removeprefix("weight."): value for name, value in tensors.items() if name != "weight"}, device=torch.device("cpu"))
    assert state.shape == torch.Size([ROWS, COLUMNS]) and state.dtype == torch.bfloat16
    state.dtype = torch.float32
    return bitsandbytes.functional.dequantize_4bit(tensors["weight"], state)


def compressed(name, tensors):
    form, scheme = COMPRESSED[name]
    for key in ("weight_scale", "weight_global_scale"):      # in float32, so that the product is not rounded
        if key in tensors and tensors[key].dtype in (torch.bfloat16, torch.float8_e4m3fn):
            tensors[key] = tensors[key].float()
    return BaseCompressor.get_value_from_registry(form).decompress(tensors, scheme)["weight"]


for path in sorted(folder.glob("*.safetensors")):
    name = path.stem
    tensors = {key.removeprefix("layer.linear."): value for key, value in load_file(path).items()}
    assert all("." not in key or key.startswith("weight.") for key in tensors), list(tensors)
    expected = np.fromfile(folder / f"{name}.values", dtype=np.float32).reshape(ROWS, COLUMNS)
    other = {"gptq": gptq, "awq": awq, "nf4": nf4}
    values = (other[name](tensors) if name in other else compressed(name, tensors)).float().numpy()
    assert values.shape == expected.shape, (name, values.shape)
    assert np.array_equal(values, expected), (name, np.abs(values - expected).max(), np.abs(expected).max())
assert len(list(folder.glob("*.safetensors"))) == len(COMPRESSED) + 3
