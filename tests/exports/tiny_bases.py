"""Tiny random bases with a random adapter: what `graft export` is given, and what its exports must hold.

The makers of the bases are those of tests/conformance; the merge here is torch's, so it shares nothing with graft's.
"""
import json
import os
import pathlib
import shutil
import sys
from dataclasses import dataclass

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("conformance", "engines")]

import numpy as np
import torch
from families import llama, qwen2, qwen3
from case import Case, GgufCase
from golden import attach_adapter, load_model, write_model
from gguf_golden import gguf_name, interleave_rope_rows, write_gguf
from peft import PeftModel
from safetensors.torch import load_file, save_file

# Columns in 256s, so that K-quants are real; 8 layers of 7 matrices would hide nothing more.
LLAMA = llama.BLOCKS
QWEN2 = next(case.config for case in qwen2.GGUF_CASES)
QWEN3 = next(case.config for case in qwen3.GGUF_CASES)
LLAMA3_ROPE = LLAMA | {"head_dim": 32, "rope_scaling": llama.LLAMA3_ROPE, "attention_bias": True, "tie_word_embeddings": True}
LLAMA32_ROPE = LLAMA | {"head_dim": 32, "rope_scaling": llama.LLAMA3_ROPE | {"factor": 32.0, "original_max_position_embeddings": 8192}}
CASES = {
    "Llama": [Case("export_llama", LLAMA),
              Case("export_llama_rope_bias_tied", LLAMA3_ROPE, lora={"target_modules": ["q_proj", "down_proj"], "use_rslora": True}, sharded=True),
              GgufCase("export_llama_f32", LLAMA, types=("F32",)),
              GgufCase("export_llama_q4_1", LLAMA, types=("Q4_1",), head_type="Q8_0"),
              GgufCase("export_llama_rope_freqs", LLAMA32_ROPE, types=("F32",), rope_factors=llama.llama3_factors(LLAMA32_ROPE))],
    "Qwen2": [Case("export_qwen2", QWEN2), GgufCase("export_qwen2_q4_1", QWEN2, types=("Q4_1",), head_type="Q8_0")],
    "Qwen3": [Case("export_qwen3", QWEN3, lora={"use_rslora": True}),
              GgufCase("export_qwen3_q4_1", QWEN3, types=("Q4_1",), head_type="Q8_0", lora={"lora_alpha": 5.5})],
}


@dataclass
class Base:
    case: Case
    path: pathlib.Path            # directory or .gguf file
    adapter: pathlib.Path         # PEFT folder
    plain: dict[str, torch.Tensor]     # the base's weights as it is read, by hub name
    merged: dict[str, torch.Tensor]    # with the adapter
    model: torch.nn.Module        # transformers, float32, without the adapter
    ids: list[int]
    logits: np.ndarray            # [T, V], with the adapter
    plain_logits: np.ndarray      # without

    @property
    def config(self) -> dict:
        return self.case.config

    @property
    def is_gguf(self) -> bool:
        return self.path.suffix == ".gguf"

    def as_gguf(self, name: str, weight: torch.Tensor) -> np.ndarray:
        """A weight, its rows as a GGUF file has them."""
        heads = {"q_proj": self.config["num_attention_heads"], "k_proj": self.config["num_key_value_heads"]}.get(name.split(".")[-2], 0)
        values = weight.numpy()
        return interleave_rope_rows(values, heads) if heads and self.config["model_type"] == "llama" else values


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """As saved: a tied head is left out."""
    tied = model.config.tie_word_embeddings
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if not (tied and name == "lm_head.weight")}


def merge(plain: dict, adapter: pathlib.Path) -> dict:
    """W + scale B A, in double, rounded once."""
    options = json.loads((adapter / "adapter_config.json").read_text())
    scale = options["lora_alpha"] / (options["r"] ** 0.5 if options["use_rslora"] else options["r"])
    tensors = load_file(adapter / "adapter_model.safetensors")
    merged = dict(plain)
    for name, a in tensors.items():
        if ".lora_A." in name:
            b = tensors[name.replace(".lora_A.", ".lora_B.")]
            weight = name.removeprefix("base_model.model.").replace(".lora_A", "")
            merged[weight] = (plain[weight].double() + scale * (b.double() @ a.double())).float()
    return merged


def make_base(case: Case, folder: pathlib.Path) -> Base:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if isinstance(case, GgufCase):
        path = folder / "model.gguf"
        model = write_gguf(case, path)
    else:
        path = folder / "model"
        model = write_model(case, path)
    plain = weights_of(model)
    adapter = folder / "adapter"
    attach_adapter(model, case, adapter).unload()
    # Strong enough that an export without it would fail the bounds.
    values = load_file(adapter / "adapter_model.safetensors")
    save_file({name: value * (1.5 if ".lora_A." in name else 1) for name, value in values.items()},
              adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    ids = torch.randint(0, case.config["vocab_size"], (1, 41), generator=torch.Generator().manual_seed(5))
    ids = ids[0].tolist()
    plain_logits = logits_of(model, ids)
    adapted = PeftModel.from_pretrained(model, adapter).eval()
    logits = logits_of(adapted, ids)
    return Base(case, path, adapter, plain, merge(plain, adapter), adapted.unload(), ids, logits, plain_logits)


def logits_of(model: torch.nn.Module, ids: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().numpy()


def relative_l2(x, y) -> float:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return float(np.linalg.norm(x - y) / max(np.linalg.norm(y), 1e-30))


__all__ = ["Base", "CASES", "gguf_name", "load_model", "logits_of", "make_base", "relative_l2"]
