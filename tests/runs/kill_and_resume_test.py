#!/usr/bin/env python3
"""A run that is killed and resumed ends with the uninterrupted run's bytes; a resume that would not is refused.

  kill_and_resume_test.py --graft PROGRAM [--kills 4] [--inside 2] [--steps 6]
"""
import argparse
import hashlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from graft_program import ROOT, with_settings

STEPS, EVERY = 6, 2


def command(graft: str, out: pathlib.Path, *more: str) -> list[str]:
    settings = [f"schedule.steps={STEPS}", "optimizer.batch_rows=2", f"run.checkpoint_every={EVERY}", "run.threads=1", "data.validation_fraction=0",
                "data.test=[]", "export=[]"]
    return [graft, "train", str(ROOT / "recipes/support_routing.yaml"), "--out", str(out), "--quiet",
            *with_settings(settings), *more]


def outcome(run: pathlib.Path) -> tuple[str, list]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    adapter = (run / "adapter/adapter_model.safetensors").read_bytes()
    return hashlib.sha256(adapter).hexdigest(), [(line["step"], line["loss"], line["gradient_norm"]) for line in lines]


def steps_done(run: pathlib.Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def writes_checkpoint(run: pathlib.Path) -> bool:
    return any((run / "checkpoints").glob("*.partial"))


def newest_checkpoint(run: pathlib.Path) -> int:
    return max((int(path.name.split("-")[1]) for path in (run / "checkpoints").glob("step-*") if not path.name.endswith(".partial")), default=0)


def within(out: pathlib.Path) -> str:
    """What a process that stands still is in the middle of; "between" where a checkpoint is due and does not show yet, and behind the last step."""
    if writes_checkpoint(out):
        return "checkpoint"
    steps = steps_done(out)
    return "step" if steps < STEPS and (steps % EVERY != 0 or newest_checkpoint(out) >= steps) else "between"


def stop(process: subprocess.Popen) -> bool:
    """All threads of the process stand still; false where it has ended instead."""
    process.send_signal(signal.SIGSTOP)
    while process.poll() is None:
        try:
            states = [path.read_text().rpartition(")")[2].split()[0] for path in pathlib.Path(f"/proc/{process.pid}/task").glob("*/stat")]
        except (FileNotFoundError, ProcessLookupError):   # a thread that has just ended
            continue
        if set(states) == {"T"}:
            return True
    return False


def kill_within(process: subprocess.Popen, out: pathlib.Path, wanted: str, after: int, spread: float) -> bool:
    """Kills `spread` seconds into a step, or into the writing of a checkpoint, from step `after` on; false where the run ends before. The process is stopped
    first, so that where the kill falls is known: elsewhere it goes on to the next such moment, and ever earlier into it."""
    begin = newest_checkpoint(out)

    def wait(until) -> None:
        while process.poll() is None and not until():
            time.sleep(0.0005)

    wait(lambda: steps_done(out) == begin and not writes_checkpoint(out))   # the resumed process has cut back what the killed one left
    wait(lambda: steps_done(out) >= after)
    while process.poll() is None:
        wait(lambda: within(out) == wanted)
        time.sleep(spread)
        spread /= 2
        if stop(process):
            if within(out) == wanted:
                process.kill()
                return True
            process.send_signal(signal.SIGCONT)
    return False


def run_killed(graft: str, out: pathlib.Path, moments: list[str], seconds: float, seed: int) -> int:
    """Kills a run once for each of the moments, at random times that `seed` chooses, and lets it end. Returns how many steps were computed."""
    chance, computed = random.Random(seed), 0
    for wanted in [*chance.sample(moments, len(moments)), None]:
        begin = newest_checkpoint(out)
        resume = ["--resume"] if (out / "manifest.json").exists() else []
        process = subprocess.Popen(command(graft, out, *resume), stderr=subprocess.PIPE, text=True)
        if wanted:
            room = begin + 2 * EVERY < STEPS   # for kills beyond the next checkpoint, and a step that follows them
            after = begin + (EVERY if wanted == "checkpoint" else chance.randint(1, 2 * EVERY - 1 if room else EVERY - 1))
            killed = kill_within(process, out, wanted, after, chance.random() * (seconds if wanted == "step" else 0.05))
        _, errors = process.communicate()
        assert process.returncode == (-signal.SIGKILL if wanted else 0), f"exit {process.returncode} instead of a kill within a {wanted}: {errors}"
        assert not wanted or killed
        computed += steps_done(out) - begin
    return computed


def full_disk(graft: str, out: pathlib.Path, whole: pathlib.Path) -> None:
    """After the first checkpoint no file may grow beyond a megabyte: the next one fails, the first stays, and a resume ends as if nothing had been."""
    process = subprocess.Popen(command(graft, out), stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN))
    while newest_checkpoint(out) < EVERY and process.poll() is None:
        time.sleep(0.001)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    _, errors = process.communicate()
    assert process.returncode == 3, f"exit {process.returncode}: {errors}"
    assert newest_checkpoint(out) >= EVERY and not writes_checkpoint(out)
    subprocess.run(command(graft, out, "--resume"), check=True)
    assert outcome(whole) == outcome(out), "the run on the full disk ended with other bytes or losses"
    print(f"a full disk: exit 3, the last complete checkpoint kept, the same bytes after --resume\n  {errors.strip().splitlines()[-1]}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--graft", required=True)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--inside", type=int, default=2, help="of them, kills while a checkpoint is written; the others come within a step")
    parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args()
    global STEPS
    STEPS = args.steps
    folder = pathlib.Path(tempfile.mkdtemp(prefix="graft-resume-"))
    try:
        whole, killed = folder / "whole", folder / "killed"
        subprocess.run(command(args.graft, whole), check=True)
        seconds = [json.loads(line)["seconds"] for line in (whole / "metrics.jsonl").read_text().splitlines()]
        moments = ["checkpoint"] * args.inside + ["step"] * (args.kills - args.inside)
        computed = run_killed(args.graft, killed, moments, sum(seconds) / len(seconds), seed=1)
        assert computed <= STEPS + args.kills * EVERY, f"{computed} steps were computed for {STEPS}"
        assert outcome(whole) == outcome(killed), "the resumed run ended with other bytes or losses"
        print(f"{args.kills} kills ({moments.count('step')} within a step, {moments.count('checkpoint')} while a checkpoint was written), {computed} steps computed "
              f"for {STEPS}, the same {STEPS} losses and adapter {outcome(whole)[0][:16]}")

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
        full_disk(args.graft, folder / "full", whole)
        print("SIGTERM: saved, exit 143, the same bytes after --resume")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
