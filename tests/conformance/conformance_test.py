#!/usr/bin/env python3
"""Runs `graft conform` on the goldens of one family, and proves that it fails when a golden is altered.

  conformance_test.py FAMILY --graft PROGRAM --goldens DIR            every case must pass
  conformance_test.py FAMILY --graft PROGRAM --goldens DIR --faults   every altered golden must fail
"""
import argparse
import importlib
import os
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
SUMMARY = re.compile(r"^(\d+) passed, (\d+) failed$", re.MULTILINE)


def conform(graft: str, folder: pathlib.Path, golden: pathlib.Path) -> tuple[int, str]:
    model = folder / "model" if (folder / "model").is_dir() else folder / "model.gguf"
    command = [graft, "conform", str(model), "--golden", str(golden), "--adapter", str(folder / "adapter")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=300)
    return done.returncode, done.stdout


def expect_pass(graft: str, folder: pathlib.Path, golden: pathlib.Path, tensors: int) -> str:
    """Empty, or what is wrong."""
    code, output = conform(graft, folder, golden)
    summary = SUMMARY.search(output)
    if code != 0 or not summary or int(summary[2]) != 0:
        return f"exit {code}\n{output[-3000:]}"
    if int(summary[1]) != tensors:
        return f"{tensors} tensors in the golden, {summary[1]} checked\n{output[-3000:]}"
    return ""


def altered(golden: dict) -> dict[str, dict]:
    """Faults just above the tolerances: an error of e relative to the tensor's norm is e^2/2 in conform's measure."""
    import torch
    random = torch.Generator().manual_seed(7)

    def shifted(name: str, relative: float) -> dict:
        tensor = golden[name]
        noise = torch.randn(tensor.shape, generator=random)
        return golden | {name: tensor + noise * (relative * tensor.norm() / noise.norm())}

    gradients = [name for name in golden if name.startswith("grad.")]
    one_logit = golden["logits"].clone()
    one_logit[0, -1, 3] += 1e-3 * one_logit.norm()
    nan = golden["logits"].clone()
    nan[0, 0, 0] = float("nan")
    labels = golden["labels"].clone()
    labels[0, 3] = 7 if labels[0, 3] != 7 else 8
    return {
        "logits by 3e-5": shifted("logits", 3e-5),
        "one logit of the last token": golden | {"logits": one_logit},
        "a NaN": golden | {"logits": nan},
        "first gradient by 1e-4": shifted(gradients[0], 1e-4),
        "last gradient by 1e-4": shifted(gradients[-1], 1e-4),
        "loss by 3e-6": golden | {"loss": golden["loss"] * (1 + 3e-6)},
        "one label": golden | {"labels": labels},
        "one token": golden | {"input_ids": golden["input_ids"].index_fill(1, torch.tensor([2]), 6)},
        "a missing gradient": {name: tensor for name, tensor in golden.items() if name != gradients[1]},
        "a gradient of no adapter tensor": golden | {"grad.base_model.model.lm_head.lora_A.weight": golden[gradients[0]]},
    }


def check_faults(graft: str, folder: pathlib.Path) -> list[str]:
    from safetensors.torch import load_file, save_file
    wrong = []
    for kind in ("golden", "documents"):
        golden = load_file(folder / f"{kind}.safetensors")
        faults = altered(golden)
        if kind == "documents":   # attention must see the borders: without them the logits differ
            faults["the borders"] = {name: tensor for name, tensor in golden.items() if name != "documents"}
        for name, fault in faults.items():
            path = folder / "fault.safetensors"
            save_file({key: value.clone() for key, value in fault.items()}, path)   # clones: no two may share memory
            code, output = conform(graft, folder, path)
            print(f"{'ok   ' if code in (1, 2) else 'WRONG'} {folder.name} {kind}: altered {name}: exit {code}", flush=True)
            if code not in (1, 2):
                wrong.append(f"{kind} altered by {name}: exit {code}, expected 1 or 2\n{output[-1500:]}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family")
    parser.add_argument("--graft", required=True)
    parser.add_argument("--goldens", type=pathlib.Path, required=True)
    parser.add_argument("--faults", action="store_true")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"

    module = importlib.import_module(f"families.{arguments.family}")
    cases = module.CASES + getattr(module, "GGUF_CASES", [])
    failures = []
    if arguments.faults:
        failures += check_faults(arguments.graft, arguments.goldens / module.CASES[0].name)
    else:
        from safetensors import safe_open
        for case in cases:
            folder = arguments.goldens / case.name
            for kind in ("golden", "documents"):
                with safe_open(folder / f"{kind}.safetensors", "pt") as golden:
                    tensors = sum(name in ("logits", "loss") or name.startswith("grad.") for name in golden.keys())
                wrong = expect_pass(arguments.graft, folder, folder / f"{kind}.safetensors", tensors)
                print(f"{'FAILED' if wrong else 'passed'} {case.name} {kind} ({tensors} tensors)", flush=True)
                if wrong:
                    failures.append(f"{case.name} {kind}: {wrong}")
    for failure in failures:
        print(f"\n--- {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
