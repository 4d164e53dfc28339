#!/usr/bin/env python3
"""A run that is killed and resumed ends with the uninterrupted run's bytes; a resume that would not is refused.

  kill_and_resume_test.py --graft PROGRAM [--kills 3]
"""
import argparse
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS, EVERY = 6, 2


def command(graft: str, out: pathlib.Path, *more: str) -> list[str]:
    settings = [f"schedule.steps={STEPS}", "optimizer.batch_rows=2", f"run.checkpoint_every={EVERY}", "run.threads=1", "data.validation_fraction=0",
                "data.test=[]", "export=[]"]
    return [graft, "train", str(ROOT / "recipes/support_routing.yaml"), "--out", str(out), "--quiet",
            *[part for setting in settings for part in ("--set", setting)], *more]


def outcome(run: pathlib.Path) -> tuple[str, list]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    adapter = (run / "adapter/adapter_model.safetensors").read_bytes()
    return hashlib.sha256(adapter).hexdigest(), [(line["step"], line["loss"], line["gradient_norm"]) for line in lines]


def steps_done(run: pathlib.Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def run_killed(graft: str, out: pathlib.Path, kills: int, seed: int) -> int:
    """Returns how often it was killed; every kill comes at a random moment after a random step."""
    chance, killed = random.Random(seed), 0
    while True:
        resume = ["--resume"] if (out / "manifest.json").exists() else []
        process = subprocess.Popen(command(graft, out, *resume), stderr=subprocess.PIPE, text=True)
        after, before = chance.randint(1, 2), steps_done(out)
        while process.poll() is None and (killed >= kills or steps_done(out) < before // EVERY * EVERY + after):
            time.sleep(0.01)
        time.sleep(chance.random() * 0.3)
        if process.poll() is None and killed < kills:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        _, errors = process.communicate()
        if process.returncode == 0:
            return killed
        assert process.returncode == -signal.SIGKILL, f"exit {process.returncode}: {errors}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--graft", required=True)
    parser.add_argument("--kills", type=int, default=3)
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="graft-resume-"))
    try:
        whole, killed = folder / "whole", folder / "killed"
        subprocess.run(command(args.graft, whole), check=True)
        kills = run_killed(args.graft, killed, args.kills, seed=1)
        assert outcome(whole) == outcome(killed), "the resumed run ended with other bytes or losses"
        print(f"{kills} kills, the same {STEPS} losses and adapter {outcome(whole)[0][:16]}")

        again = subprocess.run(command(args.graft, whole), capture_output=True, text=True)
        assert again.returncode == 2 and "--resume" in again.stderr, again.stderr
        other = subprocess.run(command(args.graft, whole, "--resume", "--set", "run.seed=1"), capture_output=True, text=True)
        assert other.returncode == 2 and "run.seed" in other.stderr, other.stderr
        print("refused: a second run in the folder, a resume with another seed")

        stopped = folder / "stopped"
        process = subprocess.Popen(command(args.graft, stopped), stderr=subprocess.PIPE, text=True)
        while steps_done(stopped) < 1 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.communicate()
        assert process.returncode == 143, process.returncode
        subprocess.run(command(args.graft, stopped, "--resume"), check=True)
        assert outcome(whole) == outcome(stopped), "the stopped run ended with other bytes or losses"
        print("SIGTERM: saved, exit 143, the same bytes after --resume")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
