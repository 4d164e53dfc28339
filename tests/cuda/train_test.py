#!/usr/bin/env python3
"""`graft train` on cuda:0: 20 steps in float32 have the losses of the CPU; in bfloat16 two runs, and one that was killed and resumed, give the same bytes; another
device is refused. Exit code 77: no GPU that it can use.

  train_test.py --graft PROGRAM
"""
import json
import os
import pathlib
import signal
import subprocess
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("runs", "support")]
import graft_program
from parallel_test import Runs

SKIPPED = 77
STEPS = 20


class TrainOnGpu(Runs):
    def changes(self, device: str, compute: str = "bfloat16") -> dict:
        return {"schedule__steps": STEPS, "model__compute": compute, "run__device": device, "data__test": []}

    def on(self, device: str, name: str, *more, compute: str = "bfloat16") -> tuple:
        return self.train(name, 1, *more, **self.changes(device, compute))

    def losses(self, name: str) -> list[float]:
        return [line["loss"] for line in map(json.loads, (self.folder / name / "metrics.jsonl").read_text().splitlines()) if "loss" in line]

    def test_float32_has_the_losses_of_the_cpu(self):
        for device, name in (("cpu", "cpu"), ("cuda:0", "gpu")):
            self.on(device, name, compute="float32")
        ours, expected = self.losses("gpu"), self.losses("cpu")
        self.assertEqual(len(ours), STEPS)
        for step, (got, wanted) in enumerate(zip(ours, expected, strict=True), 1):
            self.assertAlmostEqual(got, wanted, delta=1e-4 * wanted, msg=f"step {step}")
        self.assertTrue(json.loads((self.folder / "gpu/manifest.json").read_text())["run"]["device"].startswith("cuda: "))
        self.assertGreater(json.loads((self.folder / "gpu/manifest.json").read_text())["peak_device_memory_bytes"], 0)

    def test_bfloat16_repeats_its_bytes_also_when_killed(self):
        first = self.on("cuda:0", "first")
        self.assertEqual(self.on("cuda:0", "second"), first)
        process = subprocess.Popen([graft_program.PROGRAM, "train", str(self.recipe("killed", **self.changes("cuda:0"))), "--quiet"])
        self.wait_for_step(self.folder / "killed", 7)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.assertEqual(self.on("cuda:0", "killed", "--resume"), first)

    def test_another_device_is_refused(self):
        self.on("auto", "moved")
        done = subprocess.run([graft_program.PROGRAM, "train", str(self.folder / "moved.yaml"), "--resume"], capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
        self.assertEqual(done.returncode, 2)
        self.assertIn("device: cuda: ", done.stderr)


def has_gpu(program: str) -> bool:
    TrainOnGpu.setUpClass()
    recipe = TrainOnGpu().recipe("probe", run__device="auto")
    planned = subprocess.run([program, "plan", str(recipe), "--no-probe", "--json"], capture_output=True, text=True, check=True)
    TrainOnGpu.tearDownClass()
    return json.loads(planned.stdout)["device"] != "cpu"


if __name__ == "__main__":
    if not has_gpu(sys.argv[sys.argv.index("--graft") + 1]):
        sys.exit(SKIPPED)
    graft_program.main()
