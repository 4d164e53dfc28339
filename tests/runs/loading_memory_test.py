#!/usr/bin/env python3
"""A sharded checkpoint of more than 1 GiB takes at most 1.1 times its bytes in memory: every weight is there once, in the form it came in.

  loading_memory_test.py --graft PROGRAM

`graft logits` of a few tokens loads a model and reads every matrix of it. Measured: the largest resident set of that process, anonymous memory and pages of
mapped files together, less that of the same command on a tiny model of the family.
"""
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import graft_program
from large_checkpoint import gpt2, gpt_oss, llama, qwen3_moe, write_checkpoint

TOKENS = [(7 * i * i + 3 * i) % 256 for i in range(96)]    # enough that every expert is chosen
LARGEST_RATIO = 1.1


class LoadingMemory(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="graft-loading-"))
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "tokens.json").write_text(json.dumps(TOKENS))

    def peak_bytes(self, model: pathlib.Path) -> int:
        command = [graft_program.PROGRAM, "logits", str(model), "--tokens", str(self.folder / "tokens.json"), "--out", str(self.folder / "logits.safetensors"), "--compute", "bfloat16"]
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(command, stderr=errors)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            errors.seek(0)
            self.assertEqual(process.returncode, 0, errors.read()[-3000:])
        return usage.ru_maxrss * 1024

    def check(self, family, large: tuple, tiny: tuple, **more):
        write_checkpoint(self.folder / "tiny", *family(*tiny, **more))
        total = write_checkpoint(self.folder / "large", *family(*large, **more))
        self.assertGreaterEqual(total, 1 << 30)
        self.assertGreater(len(list((self.folder / "large").glob("*.safetensors"))), 2)
        baseline = self.peak_bytes(self.folder / "tiny")
        # A child's peak is never below what its parent had when it began.
        self.assertGreater(baseline, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        ratio = (self.peak_bytes(self.folder / "large") - baseline) / total
        print(f"{family.__name__} {more or ''}: {total / 2**30:.2f} GiB in {len(list((self.folder / 'large').glob('*.safetensors')))} shards, peak {ratio:.3f} times that, "
              f"above {baseline / 2**20:.0f} MiB of the program")
        self.assertLessEqual(ratio, LARGEST_RATIO)
        self.assertGreater(ratio, 0.8, "not all of the model was read: this shows nothing")   # of the embedding only the tokens' rows are

    def test_llama(self):
        self.check(llama, (2048, 11, 16000, 5632), (64, 2, 300, 96))

    def test_experts_one_by_one(self):
        self.check(qwen3_moe, (2048, 7, 16000, 768, 16), (64, 2, 300, 96, 4))

    def test_experts_stacked_and_transposed(self):
        self.check(gpt_oss, (2048, 6, 16000, 1408, 10), (64, 2, 300, 96, 4))

    def test_experts_in_four_bits(self):
        self.check(gpt_oss, (2048, 9, 16000, 2048, 16), (64, 2, 300, 96, 4), mxfp4=True)

    def test_matrices_transposed(self):
        self.check(gpt2, (2048, 11, 16000), (64, 2, 300))


if __name__ == "__main__":
    graft_program.main()
