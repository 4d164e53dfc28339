"""Quantised matrices of the hub as their own libraries decode them, in float32: compressed-tensors its forms, bitsandbytes NF4.

GPTQ and AWQ have no library for a CPU that installs here: their layouts are unpacked as AutoGPTQ and AutoAWQ document them (and vLLM loads them: tests/engines).
"""
import bitsandbytes.functional
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.mx_utils import decompress_mx_scale
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import dequantize

SHIFTS = torch.arange(8) * 4
AWQ_SHIFTS = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7]) * 4      # AutoAWQ's AWQ_REVERSE_ORDER


def gptq(tensors: dict) -> torch.Tensor:
    words = tensors["qweight"]
    codes = (words[:, None, :] >> SHIFTS[None, :, None] & 15).reshape(-1, words.shape[1])
    zeros = (tensors["qzeros"][:, :, None] >> SHIFTS & 15).reshape(-1, words.shape[1]) + 1
    group = tensors["g_idx"].long()
    return ((codes - zeros[group]) * tensors["scales"].float()[group]).T


def awq(tensors: dict) -> torch.Tensor:
    codes, zeros = ((tensors[name][:, :, None] >> AWQ_SHIFTS & 15).flatten(1) for name in ("qweight", "qzeros"))
    group = torch.arange(codes.shape[0]) // (codes.shape[0] // zeros.shape[0])
    return ((codes - zeros[group]) * tensors["scales"].float()[group]).T


def nf4(tensors: dict) -> torch.Tensor:
    state = bitsandbytes.functional.QuantState.from_dict({name.removeprefix("weight."): value for name, value in tensors.items() if name != "weight"}, device=torch.device("cpu"))
    state.dtype = torch.float32
    return bitsandbytes.functional.dequantize_4bit(tensors["weight"], state)


def decoded(tensors: dict, config: dict) -> torch.Tensor:
    """tensors: of one matrix, by what stands behind its module's name ("weight_packed"); config: quantization_config."""
    if config["quant_method"] in ("gptq", "awq", "bitsandbytes"):
        return {"gptq": gptq, "awq": awq, "bitsandbytes": nf4}[config["quant_method"]](tensors)
    (group,) = config["config_groups"].values()
    scheme = QuantizationScheme(targets=group["targets"], weights=QuantizationArgs(**group["weights"]))
    if config["format"].endswith("fp4-pack-quantized"):      # the library's own decompress() has bfloat16 products
        packed, scale = tensors["weight_packed"], tensors["weight_scale"]
        scale = decompress_mx_scale(scale).float() if scale.dtype == torch.uint8 else scale.float()
        codes = unpack_fp4_from_uint8(packed, packed.shape[0], packed.shape[1] * 2, dtype=torch.float32)
        return dequantize(x_q=codes, scale=scale, args=scheme.weights, global_scale=tensors.get("weight_global_scale"), dtype=torch.float32)
    tensors = dict(tensors) | {"weight_scale": tensors["weight_scale"].float()}      # so that the product is not rounded
    return BaseCompressor.get_value_from_registry(config["format"]).decompress(tensors, scheme)["weight"].float()


def quantised_modules(tensors: dict) -> dict[str, dict]:
    """A checkpoint's quantised matrices: module -> its tensors."""
    modules = {}
    for name, tensor in tensors.items():
        for ending in (".weight_packed", ".weight_scale", ".qweight", ".weight.absmax"):
            if name.endswith(ending):
                modules[name.removesuffix(ending)] = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        for cut in range(len(parts) - 1, 0, -1):
            module = ".".join(parts[:cut])
            if module in modules:
                modules[module][name[len(module) + 1:]] = tensor
    return modules
