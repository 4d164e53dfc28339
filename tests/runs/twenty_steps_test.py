#!/usr/bin/env python3
"""Twenty float32 steps equal those of transformers + PEFT: SmolLM2 on Banking77 rows at learning rate 1e-3.

  twenty_steps_test.py --graft PROGRAM --data FOLDER      FOLDER: banking_data of Banking77 (docs/recipes.md says where to get it)
Both start from graft's own first adapter, see the same rows in every step, and read the same weights. The losses are equal to 1e-4 each, the
adapters at the end to 1e-3.
"""
import argparse
import csv
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools/bench"))
from peer_inputs import MODEL, ROOT, model_directory, peer_row

STEPS, ROWS, RANK, ALPHA, LEARNING_RATE, THREADS = 20, 6, 16, 32, 1e-3, 2


def rows_of(path: pathlib.Path) -> list[dict]:
    with open(path / "train.csv", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    return [{"messages": [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": row["category"]}]}
            for row in table[::len(table) // ROWS][:ROWS]]


def train(graft: str, work: pathlib.Path, name: str, steps: int, learning_rate: float) -> pathlib.Path:
    out = work / name
    recipe = {"model": {"base": str(MODEL), "compute": "float32"}, "adapter": {"rank": RANK, "alpha": ALPHA},
              "data": {"train": [{"path": "rows.jsonl", "format": "messages"}]},
              "optimizer": {"learning_rate": learning_rate, "batch_rows": ROWS}, "schedule": {"steps": steps, "shape": "constant", "warmup": 0},
              "run": {"out": str(out), "threads": THREADS, "device": "cpu"}, "export": []}
    (work / f"{name}.yaml").write_text(json.dumps(recipe))
    subprocess.run([graft, "train", str(work / f"{name}.yaml"), "--quiet"], check=True)
    return out


def flat(folder: pathlib.Path, names: list[str]) -> torch.Tensor:
    tensors = load_file(folder / "adapter_model.safetensors")
    assert sorted(tensors) == names, f"{folder}: other tensors"
    return torch.cat([tensors[name].double().flatten() for name in names])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--graft", required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="graft-steps-") as folder:
        work = pathlib.Path(folder)
        rows = rows_of(arguments.data)
        (work / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        encoded = subprocess.run([arguments.graft, "render", str(MODEL), "--file", str(work / "rows.jsonl")], check=True, capture_output=True, text=True)
        batch = [peer_row(json.loads(line)) for line in encoded.stdout.splitlines()]
        first = train(arguments.graft, work, "first", 1, 1e-30) / "adapter"      # a step that changes nothing: the adapter as it begins
        ours = train(arguments.graft, work, "ours", STEPS, LEARNING_RATE)
        losses = [json.loads(line)["loss"] for line in (ours / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
        clip = 1.0
        job = {"model": str(model_directory(work / "model", "float32")), "dtype": "float32", "threads": THREADS, "rank": RANK, "alpha": ALPHA, "learning_rate": LEARNING_RATE,
               "checkpointing": False, "steps": [batch] * STEPS, "adapter": str(first), "save": str(work / "theirs"), "clip": clip}
        (work / "job.json").write_text(json.dumps(job))
        peer = subprocess.run([sys.executable, str(ROOT / "tools/bench/peft_peer.py"), str(work / "job.json")], check=True, capture_output=True, text=True)
        theirs = [json.loads(line)["loss"] for line in peer.stdout.splitlines() if line.startswith('{"step"')]
        for step, (a, b) in enumerate(zip(losses, theirs, strict=True), 1):
            print(f"step {step:2}: graft {a:.6f}, PEFT {b:.6f}, difference {a - b:+.1e}")
        names = sorted(load_file(ours / "adapter/adapter_model.safetensors"))
        mine, reference, begin = (flat(path, names) for path in (ours / "adapter", work / "theirs", first))
        distance = ((mine - reference).norm() / reference.norm()).item()
        moved = ((reference - begin).norm() / reference.norm()).item()
        print(f"adapters: relative difference {distance:.1e} (training moved them by {moved:.1e})")
        assert theirs[-1] < theirs[0] / 2, "the loss does not fall by half: these rows test too little"
        assert max(abs(a - b) for a, b in zip(losses, theirs)) <= 1e-4, "the losses differ"
        assert distance <= 1e-3, "the adapters differ"


if __name__ == "__main__":
    main()
