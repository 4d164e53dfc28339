#!/usr/bin/env python3
"""Runs `graft conform` on the goldens of one family, and proves that it fails when a golden is altered.

  conformance_test.py FAMILY --graft PROGRAM --goldens DIR            every case must pass
  conformance_test.py FAMILY --graft PROGRAM --goldens DIR --faults   every altered golden must fail, and every damaged model with one error
"""
import argparse
import importlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
SUMMARY = re.compile(r"^(\d+) passed, (\d+) failed$", re.MULTILINE)
ROW = re.compile(r"^(?:ok|FAILED)\s+(\S+) \(at most \S+\)  (\S+)$", re.MULTILINE)


def conform(graft: str, folder: pathlib.Path, golden: pathlib.Path) -> tuple[int, str]:
    model = folder / "model" if (folder / "model").is_dir() else folder / "model.gguf"
    command = [graft, "conform", str(model), "--golden", str(golden), "--adapter", str(folder / "adapter")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=300)
    return done.returncode, done.stdout


def expect_pass(graft: str, folder: pathlib.Path, golden: pathlib.Path, tensors: int, errors: dict | None = None) -> str:
    """Empty, or what is wrong. errors: largest error of logits and of gradients so far."""
    code, output = conform(graft, folder, golden)
    for error, name in ROW.findall(output) if errors is not None else ():
        kind = "logits" if name == "logits" else "gradients" if name.startswith("grad.") else "loss"
        errors[kind] = max(errors.get(kind, 0.0), float(error))
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
    ids = golden["input_ids"].clone()
    ids[:, 2] = (ids[:, 2] + 1) % golden["logits"].shape[-1]
    return {
        "logits by 3e-5": shifted("logits", 3e-5),
        "one logit of the last token": golden | {"logits": one_logit},
        "a NaN": golden | {"logits": nan},
        "first gradient by 1e-4": shifted(gradients[0], 1e-4),
        "last gradient by 1e-4": shifted(gradients[-1], 1e-4),
        "loss by 3e-6": golden | {"loss": golden["loss"] * (1 + 3e-6)},
        "one label": golden | {"labels": labels},
        "one token": golden | {"input_ids": ids},
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


def load_error(graft: str, model: pathlib.Path, golden: pathlib.Path) -> str:
    done = subprocess.run([graft, "conform", str(model), "--golden", str(golden)], capture_output=True, text=True, timeout=300)
    return done.stderr if done.returncode == 2 else f"exit {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}"


def check_damage(graft: str, folder: pathlib.Path, skipped: tuple[str, ...]) -> list[str]:
    """Configurations and checkpoints with several faults at once: one error names them all. skipped: tensors of the file that are not the text model's."""
    from safetensors.torch import load_file, save_file
    wrong = []

    def expect(what: str, model: pathlib.Path, names: list[str]) -> None:
        error = load_error(graft, model, folder / "golden.safetensors")
        absent = [name for name in names if name not in error]
        print(f"{'WRONG' if absent else 'ok   '} {folder.name} {what}", flush=True)
        if absent:
            wrong.append(f"{folder.name} {what}: the error does not name {absent}:\n{error}")

    damaged = folder / "damaged"
    shutil.rmtree(damaged, ignore_errors=True)
    shutil.copytree(folder / "model", damaged)
    config = json.loads((damaged / "config.json").read_text())
    epsilon = next(key for key in config if key.endswith("epsilon") or key.endswith("norm_eps"))
    vocabulary = next(key for key in config if key.endswith("vocab_size"))
    heads = next(key for key in config if key in ("num_attention_heads", "n_head"))
    broken = {key: value for key, value in config.items() if key not in (epsilon, vocabulary)} | {heads: "many", "quantum_layers": 3}
    (damaged / "config.json").write_text(json.dumps(broken))
    expect("config.json", damaged, [f"missing keys: ", epsilon, vocabulary, f"wrong values: {heads}", "unknown keys: quantum_layers"])
    (damaged / "config.json").write_text(json.dumps(config | {"model_type": "perceptron"}))
    expect("a family that is not there", damaged, ["llama", "gemma3_text", "PanguEmbedded", "gpt2", "got perceptron"])
    (damaged / "config.json").write_text(json.dumps(config))
    if (damaged / "model.safetensors").exists():
        tensors = load_file(damaged / "model.safetensors")
        names = sorted(name for name, tensor in tensors.items() if tensor.dim() == 2 and name not in skipped)
        missing, misshaped = names[0], names[-1]
        tensors["surplus.weight"] = tensors.pop(missing)
        tensors[misshaped] = tensors[misshaped][:-1].clone()
        save_file(tensors, damaged / "model.safetensors")
        expect("tensors", damaged, ["missing: ", missing, f"misshaped: {misshaped}", "surplus: surplus.weight"])
    shutil.rmtree(damaged)
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
        whole = next(case for case in module.CASES if not case.sharded)
        failures += check_damage(arguments.graft, arguments.goldens / whole.name, whole.layout.surplus if whole.layout else ())
    else:
        from safetensors import safe_open
        results = {}
        for case in cases:
            errors = results[case.name] = {}
            folder = arguments.goldens / case.name
            for kind in ("golden", "documents", "balancing"):
                if kind == "balancing" and not case.load_balancing:
                    continue
                with safe_open(folder / f"{kind}.safetensors", "np") as golden:
                    tensors = sum(name in ("logits", "loss") or name.startswith("grad.") for name in golden.keys())
                wrong = expect_pass(arguments.graft, folder, folder / f"{kind}.safetensors", tensors, errors)
                print(f"{'FAILED' if wrong else 'passed'} {case.name} {kind} ({tensors} tensors) {errors}", flush=True)
                if wrong:
                    failures.append(f"{case.name} {kind}: {wrong}")
        (arguments.goldens / f"{arguments.family}.conformance.json").write_text(json.dumps(results, indent=2))
    for failure in failures:
        print(f"\n--- {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
