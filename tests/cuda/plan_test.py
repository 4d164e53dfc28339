#!/usr/bin/env python3
"""What the program says of GPUs that a fake driver shows: `graft plan`'s note, its estimate, its refusals.

  plan_test.py --graft PROGRAM        with GRAFT_FAKE_DRIVER: the folder of the fake libcuda.so.1 and libnvidia-ml.so.1
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import graft_program
from graft_program import ROOT, with_settings


def plan(gpus: str, *settings: str, **environment: str) -> subprocess.CompletedProcess:
    """plan --no-probe --json of a shipped recipe, on a machine with these GPUs."""
    with tempfile.TemporaryDirectory(prefix="graft-gpus-") as folder:
        command = [graft_program.PROGRAM, "plan", ROOT / "recipes/support_routing.yaml", "--out", f"{folder}/run", "--no-probe", "--json", *with_settings([*settings])]
        return subprocess.run([*map(str, command)], capture_output=True, text=True,
                              env={**os.environ, "LD_LIBRARY_PATH": os.environ["GRAFT_FAKE_DRIVER"], "FAKE_GPUS": gpus, **environment})


def has_module() -> bool:
    return (pathlib.Path(graft_program.PROGRAM).parent / "libgraft_cuda.so").exists()


class Plan(unittest.TestCase):
    def test_auto_says_which_and_why(self):
        done = plan("Small|8|0|40|30;Large|9|0|80|70")
        self.assertEqual(done.returncode, 0, done.stderr)
        made = json.loads(done.stdout)
        if not has_module():
            self.assertEqual(made["device"], "cpu")
            self.assertTrue(any(note.startswith("device cpu: libgraft_cuda.so is not beside the program") for note in made["notes"]), made["notes"])
            return
        self.assertEqual(made["device"], "cuda: Large, sm_90")
        self.assertIn("device cuda:1: Large, sm_90, 70.0 of 80.0 GiB free, the most of 2 GPUs", made["notes"])
        memory = made["device_memory"]
        self.assertEqual(memory["available"], 70 << 30)
        self.assertEqual(made["device_memory_bytes"], sum(memory[part] for part in ("base", "adapters", "activations", "scratch", "program")))
        self.assertAlmostEqual(memory["base"] / 1e6, 106.2 * 20 / 32 + 2 * 28.3, delta=1, msg="SmolLM2's matrices in blocks of Q4_1, its head in bfloat16")
        self.assertLess(made["device_memory_bytes"], 20 << 30)

    def test_a_gpu_that_is_too_full_is_refused(self):
        done = plan("Full|9|0|80|0.5", "run.device=cuda:0")
        if not has_module():
            self.assertEqual(done.returncode, 2)
            return
        self.assertEqual(done.returncode, 1)
        self.assertRegex(json.loads(done.stdout)["errors"][0], r"needs \d+\.\d+ GiB of memory on the GPU, 0\.50 are free")

    def test_a_gpu_that_cannot_be_used_is_one_error(self):
        done = plan("Old|7|5|16|16", "run.device=cuda:0")
        self.assertEqual(done.returncode, 2)
        self.assertEqual(done.stderr.strip().splitlines()[-1],
                         "error: [graft.run] expected run.device to name a GPU that this program can use, got cuda:0: cuda:0 (Old) is of sm_75, older than sm_80 — "
                         "name another, or set run.device: cpu")

    def test_auto_goes_on_without_it(self):
        for gpus, words in (("Old|7|5|16|16", "device cpu: cuda:0 (Old) is of sm_75, older than sm_80"),
                            ("", "device cpu: the NVIDIA driver shows no GPU (CUDA_VISIBLE_DEVICES may hide them)")):
            made = json.loads(plan(gpus).stdout)
            self.assertEqual((made["device"], "device_memory" in made), ("cpu", False))
            self.assertIn(words, made["notes"])

    def test_hidden_gpus_are_not_counted(self):
        done = plan("A|9|0|80|70;B|9|0|80|70", "run.device=cuda:1", CUDA_VISIBLE_DEVICES="1")
        self.assertEqual(done.returncode, 2)
        self.assertIn("got cuda:1: 1 GPU is visible, the first is cuda:0", done.stderr)


if __name__ == "__main__":
    graft_program.main()
