#!/usr/bin/env python3
"""SIGTERM and SIGINT: within a step they save and leave; behind the last step they end the program at once. A resume does the rest, to the same bytes.

  stop_test.py --graft PROGRAM
"""
import pathlib
import signal
import subprocess
import sys
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parents[1] / "support")]
import graft_program
from parallel_test import Runs, outcome
from tiny_chat_model import write_rows

TEST_ROWS = 3000     # reading these takes seconds


class Stops(Runs):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        write_rows(cls.folder / "test.jsonl", TEST_ROWS, seed=3)

    def start(self, name: str, **changes) -> subprocess.Popen:
        return subprocess.Popen([graft_program.PROGRAM, "train", str(self.recipe(name, **changes))], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def wait(self, process: subprocess.Popen, until) -> None:
        for _ in range(6000):
            if until():
                return
            self.assertIsNone(process.poll(), "it ended before")
            time.sleep(0.01)
        self.fail("it never came to that")

    def resume(self, name: str, **changes) -> tuple:
        done = graft_program.run("train", self.recipe(name, **changes), "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        return outcome(self.folder / name)

    def test_behind_the_last_step_a_signal_ends_it_at_once(self):
        process = self.start("behind")
        log = self.folder / "behind/log.txt"
        self.wait(process, lambda: log.exists() and "adapter: " in log.read_text())
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        self.assertEqual(process.wait(timeout=60), -signal.SIGTERM)
        self.assertLess(time.monotonic() - began, 1)
        self.assertFalse((self.folder / "behind/evaluation.json").exists())
        self.assertEqual(self.resume("behind"), self.train("whole"))
        self.assertTrue((self.folder / "behind/evaluation.json").exists())

    def test_within_a_step_it_saves_and_leaves(self):
        changes = {"schedule__steps": 60, "data__test": []}
        process = self.start("within", **changes)
        metrics = self.folder / "within/metrics.jsonl"
        self.wait(process, lambda: metrics.exists() and metrics.read_text().count("\n") >= 4)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(timeout=60), 130)
        self.assertEqual(self.resume("within", **changes), self.train("all", **changes))


if __name__ == "__main__":
    graft_program.main()
