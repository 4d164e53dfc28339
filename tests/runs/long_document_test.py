#!/usr/bin/env python3
"""A document of 32,768 tokens trains on the CPU (tiny model): memory grows with the tokens, not with their square.

  long_document_test.py --graft PROGRAM
"""
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import graft_program
from tiny_chat_model import make_tiny_chat_model

TOKENS = 32768


class LongDocument(unittest.TestCase):
    def test_trains(self) -> None:
        with tempfile.TemporaryDirectory(prefix="graft-long-") as scratch:
            folder = pathlib.Path(scratch)
            make_tiny_chat_model(folder / "model", max_position_embeddings=TOKENS, num_hidden_layers=2)
            text = " ".join(str(number) for number in range(TOKENS))[:TOKENS - 1]   # a byte a token, and the end token
            (folder / "train.jsonl").write_text(json.dumps({"text": text}) + "\n")
            (folder / "recipe.yaml").write_text(f"""
accept_licence: unknown
model: {{base: {folder / 'model'}}}
data:
  train: [{{path: {folder / 'train.jsonl'}, format: text}}]
  max_tokens: {TOKENS}
adapter: {{rank: 4}}
optimizer: {{learning_rate: 0.01}}
schedule: {{steps: 2, warmup: 0}}
run: {{out: {folder / 'run'}, device: cpu}}
""")
            process = subprocess.Popen([graft_program.PROGRAM, "train", folder / "recipe.yaml", "--quiet"], stderr=subprocess.PIPE, text=True)
            _, error = process.communicate(timeout=800)
            self.assertEqual(process.returncode, 0, error)
            steps = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
            losses = [step["loss"] for step in steps if "loss" in step]
            self.assertEqual(len(losses), 2)
            self.assertLess(losses[1], losses[0])
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
            print(f"peak {peak / (1 << 20):.0f} MiB, losses {losses}")
            self.assertLess(peak, 1 << 30, "scores of all pairs would be 4 GiB a head")


if __name__ == "__main__":
    graft_program.main()
