#!/usr/bin/env python3
"""A family's exports: read by llama.cpp, by transformers and by graft itself, each compared with the golden that PEFT made.

  exported_test.py FAMILY --graft PROGRAM --goldens DIR
GGUF: the base as F32 with the adapter as a GGUF LoRA, and the merged model, in llama.cpp; the same base read back by graft gives logits and
gradients of the golden. Safetensors: the merged model, and a GGUF base written back in hub layout, in transformers. PEFT: the same bytes; with a module for each expert,
added to the matrices of those names in the base's own files, in transformers.
"""
import argparse
import importlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "engines"), str(HERE.parents[1] / "tools" / "engines")]
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from conformance_test import expect_pass
from llama_cpp import LlamaCpp
from reader import mean_kl
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig
from transformers.utils import logging

KL = 1e-8           # float32 in llama.cpp; a family that computes GELU from its 16-bit table says what that costs (GGUF_KL)


class Failed(Exception):
    pass


def graft(program: str, *arguments) -> None:
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise Failed(f"graft {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stderr[-2000:]}")


def refused(program: str, expected: str, *arguments) -> None:
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    if done.returncode != 2 or expected not in done.stderr:
        raise Failed(f"graft {' '.join(map(str, arguments))}: exit {done.returncode}, expected 2 and \"{expected}\"\n{done.stderr[-2000:]}")


def llama_cpp_kl(golden: dict, model: pathlib.Path, adapter: pathlib.Path | None = None) -> float:
    engine = LlamaCpp(str(model), str(adapter) if adapter else None, threads=1, context=64, cache="F32")
    largest = max(mean_kl(expected.numpy(), engine.logits(ids.tolist())) for ids, expected in zip(golden["input_ids"], golden["logits"]))
    engine.close()
    return largest


def transformers_error(golden: dict, folder: pathlib.Path) -> float:
    """Relative L2 of logits."""
    from golden import load_model
    with torch.inference_mode():
        logits = torch.cat([load_model(folder)(input_ids=ids[None], use_cache=False).logits for ids in golden["input_ids"]])
    return float((logits - golden["logits"]).norm() / golden["logits"].norm())


def peft_error(golden: dict, folder: pathlib.Path, adapter: pathlib.Path) -> float:
    from golden import load_model
    from peft import PeftModel
    adapted = PeftModel.from_pretrained(load_model(folder), adapter).eval()
    with torch.inference_mode():
        logits = torch.cat([adapted(input_ids=ids[None], use_cache=False).logits for ids in golden["input_ids"]])
    return float((logits - golden["logits"]).norm() / golden["logits"].norm())


def add_by_name(model: pathlib.Path, adapter: pathlib.Path, out: pathlib.Path) -> None:
    """W + scale B A for every module of an adapter, W being the tensor of that name."""
    shutil.copytree(model, out, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json"))
    weights = {name: tensor for path in model.glob("*.safetensors") for name, tensor in load_file(path).items()}
    options, factors = json.loads((adapter / "adapter_config.json").read_text()), load_file(adapter / "adapter_model.safetensors")
    for name, a in factors.items():
        if ".lora_A." not in name:
            continue
        module, b = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"), factors[name.replace(".lora_A.", ".lora_B.")]
        rank, alpha = options["rank_pattern"].get(module, options["r"]), options["alpha_pattern"].get(module, options["lora_alpha"])
        if a.shape[0] != rank:
            raise Failed(f"{name} has rank {a.shape[0]}, its config says {rank}")
        scale = alpha / (rank ** 0.5 if options["use_rslora"] else rank)
        weight = module + ".weight" if module + ".weight" in weights else module.replace(".mlp.", ".block_sparse_moe.") + ".weight"   # transformers 5 writes Kimi's dense layers so
        weights[weight] = (weights[weight].double() + scale * (b.double() @ a.double())).float()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, out / "model.safetensors", metadata={"format": "pt"})


def check_experts_apart(program: str, case, golden: dict, model: pathlib.Path, adapter: pathlib.Path, out: pathlib.Path, report: dict) -> None:
    to_modules = ("export", model, "--to", "peft:per-expert", "--adapter", adapter, "--out", out / "per_expert")
    if not any(".experts." in name for name in load_file(adapter / "adapter_model.safetensors")):
        return
    if case.config["model_type"] == "gpt_oss":
        refused(program, "export peft, which these engines read", *to_modules)
        return
    graft(program, *to_modules)
    if case.stacked or case.reference:
        return
    add_by_name(model, out / "per_expert", out / "added")
    at_most("experts apart, added by name, in transformers", transformers_error(golden, out / "added"), 1e-5, report)


def at_most(what: str, value: float, bound: float, report: dict) -> None:
    report[what] = value
    if not value <= bound:
        raise Failed(f"{what}: {value:.1e}, at most {bound:.0e}")


def count(path: pathlib.Path) -> int:
    with safe_open(path, "pt") as golden:
        return sum(name in ("logits", "loss") or name.startswith("grad.") for name in golden.keys())


def check_case(program: str, case, folder: pathlib.Path, kl_bound: float) -> dict:
    golden = load_file(folder / "golden.safetensors")
    model, adapter, report = folder / "model", folder / "adapter", {}
    out = folder / "exported"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    graft(program, "export", model, "--to", "peft", "--adapter", adapter, "--out", out / "peft")
    ours, theirs = load_file(out / "peft" / "adapter_model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    if ours.keys() != theirs.keys() or not all(torch.equal(ours[name], tensor) for name, tensor in theirs.items()):
        raise Failed("the PEFT export is not the adapter that was loaded")
    check_experts_apart(program, case, golden, model, adapter, out, report)
    if not case.reference:
        at_most("PEFT export in PEFT", peft_error(golden, model, out / "peft"), 1e-5, report)
    if not case.reference:      # config.json as transformers 5 writes it, with all that its class has by default
        saved = out / "saved_by_transformers"
        saved.mkdir()
        shutil.copytree(model, saved / "model")
        shutil.copytree(adapter, saved / "adapter")
        AutoConfig.from_pretrained(model).save_pretrained(saved / "model")
        wrong = expect_pass(program, saved, folder / "golden.safetensors", count(folder / "golden.safetensors"))
        if wrong:
            raise Failed(f"config.json written by transformers 5: {wrong}")
    graft(program, "export", model, "--to", "safetensors:F32", "--adapter", adapter, "--out", out / "merged")
    if not case.reference:
        at_most("merged in transformers", transformers_error(golden, out / "merged"), 1e-5, report)
    if not case.gguf:
        return report
    graft(program, "export", model, "--to", "gguf:F32", "--out", out / "base.gguf")
    to_lora = ("export", model, "--to", "gguf-lora", "--adapter", adapter, "--out", out / "lora.gguf")
    if case.gguf_lora:
        graft(program, *to_lora)
    else:
        refused(program, "which it multiplies without adapters", *to_lora)
    graft(program, "export", model, "--to", "gguf:F32", "--adapter", adapter, "--out", out / "merged.gguf")
    if case.gguf_lora:
        at_most("GGUF and GGUF LoRA in llama.cpp", llama_cpp_kl(golden, out / "base.gguf", out / "lora.gguf"), kl_bound, report)
    at_most("merged GGUF in llama.cpp", llama_cpp_kl(golden, out / "merged.gguf"), kl_bound, report)
    if llama_cpp_kl(golden, out / "base.gguf") < 100 * kl_bound:
        raise Failed("the adapter changes nothing: this test would pass without it")
    read_back = out / "read_back"
    read_back.mkdir()
    shutil.move(out / "base.gguf", read_back / "model.gguf")
    shutil.copytree(adapter, read_back / "adapter")
    wrong = expect_pass(program, read_back, folder / "golden.safetensors", count(folder / "golden.safetensors"))
    if wrong:
        raise Failed(f"graft conform on the GGUF file: {wrong}")
    if not case.gguf_to_hub:
        return report
    graft(program, "export", out / "merged.gguf", "--to", "safetensors:F32", "--out", out / "hub_again")
    if not case.reference:
        at_most("GGUF written back, in transformers", transformers_error(golden, out / "hub_again"), 1e-5, report)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family")
    parser.add_argument("--graft", required=True)
    parser.add_argument("--goldens", type=pathlib.Path, required=True)
    parser.add_argument("--only")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    module = importlib.import_module(f"families.{arguments.family}")
    failures = 0
    results = {}
    for case in module.CASES:
        if arguments.only and arguments.only != case.name:
            continue
        try:
            results[case.name] = check_case(arguments.graft, case, arguments.goldens / case.name, getattr(module, "GGUF_KL", KL))
            print(f"passed {case.name} {results[case.name]}", flush=True)
        except Exception as failed:
            failures += 1
            print(f"FAILED {case.name}: {type(failed).__name__}: {failed}", flush=True)
    (arguments.goldens / f"{arguments.family}.exported.json").write_text(json.dumps(results, indent=2))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
