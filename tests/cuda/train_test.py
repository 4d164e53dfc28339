#!/usr/bin/env python3
"""`graft train` on cuda:0 has the losses of `graft train` on the CPU, repeats its bytes, and resumes. Exit code 77: no GPU that it can use.

  train_test.py --graft PROGRAM
"""
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import graft_program
from graft_program import ROOT, with_settings

SKIPPED = 77
SETTINGS = ["schedule.steps=5", "schedule.warmup=0", "optimizer.batch_rows=4", "run.checkpoint_every=2", "data.validation_fraction=0", "data.test=[]", "export=[]"]


class Train(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="graft-gpu-")
        self.addCleanup(self.folder.cleanup)

    def train(self, name: str, *settings: str, more: tuple = (), code: int = 0) -> pathlib.Path:
        out = pathlib.Path(self.folder.name) / name
        done = graft_program.run("train", ROOT / "recipes/support_routing.yaml", "--out", out, *with_settings([*SETTINGS, *settings]), *more)
        self.assertEqual(done.returncode, code, done.stderr)
        return out

    def losses(self, run: pathlib.Path) -> list[float]:
        return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]

    def test_losses_bytes_and_resume(self):
        for compute, tolerance in (("float32", 1e-3), ("bfloat16", 3e-2)):
            cpu, gpu, again = (self.train(f"{name}-{compute}", f"model.compute={compute}", f"run.device={device}")
                               for name, device in (("cpu", "cpu"), ("gpu", "cuda:0"), ("again", "cuda:0")))
            for ours, expected in zip(self.losses(gpu), self.losses(cpu), strict=True):
                self.assertAlmostEqual(ours, expected, delta=tolerance * expected)
            adapters = [hashlib.sha256((run / "adapter/adapter_model.safetensors").read_bytes()).hexdigest() for run in (gpu, again)]
            self.assertEqual(*adapters)
            self.assertTrue(json.loads((gpu / "manifest.json").read_text())["run"]["device"].startswith("cuda: "))
            self.train(f"gpu-{compute}", f"model.compute={compute}", "run.device=cuda:0", more=("--resume",))

    def test_another_device_is_refused(self):
        run = self.train("moved", "run.device=auto")
        done = subprocess.run([graft_program.PROGRAM, "train", str(ROOT / "recipes/support_routing.yaml"), "--out", str(run), "--resume",
                               *with_settings([*SETTINGS, "run.device=auto"])], capture_output=True, text=True, env={"CUDA_VISIBLE_DEVICES": ""})
        self.assertEqual(done.returncode, 2)
        self.assertIn("device: cuda: ", done.stderr)


if __name__ == "__main__":
    program = sys.argv[sys.argv.index("--graft") + 1]
    with tempfile.TemporaryDirectory(prefix="graft-gpu-") as out:
        planned = subprocess.run([program, "plan", str(ROOT / "recipes/support_routing.yaml"), "--out", f"{out}/run", "--no-probe", "--json"],
                                 capture_output=True, text=True, check=True)
    if json.loads(planned.stdout)["device"] == "cpu":
        sys.exit(SKIPPED)
    graft_program.main()
