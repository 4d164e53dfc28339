#!/usr/bin/env python3
"""Whole runs of models with linear attention: plan, train, evaluation, exports with their certificates, several processes, a sharded base, chat.

  delta_attention_test.py --graft PROGRAM [Qwen3Next|Qwen35|KimiLinear]
"""
import json
import pathlib
import subprocess
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parents[1] / "support")]
import graft_program
from parallel_test import Runs
from tiny_chat_model import make_tiny_chat_model

DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16, "head_dim": 16, "rms_norm_eps": 1e-6}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "shared_expert_intermediate_size": 32}


class DeltaAttention:
    """What each family does."""
    forms = ["peft", "safetensors", "gguf:F32", "gguf-lora"]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = make_tiny_chat_model(cls.folder / "delta", **cls.settings)

    def test_train_and_export(self):
        self.train("whole", export=[{"format": form, "verify": {"max_mean_kl": 1e-4 if form == "safetensors" else 1e-6}} for form in self.forms])    # bfloat16 there
        lines = [json.loads(line) for line in (self.folder / "whole/metrics.jsonl").read_text().splitlines()]
        self.assertLess(lines[-1]["loss"], lines[0]["loss"])
        self.assertEqual(len(list((self.folder / "whole/certificates").glob("*.json"))), len(self.forms))
        evaluation = json.loads((self.folder / "whole/evaluation.json").read_text())
        self.assertIn("accuracy", json.dumps(evaluation))

    def test_one_two_and_sharded(self):
        one = self.train("alone")
        self.assertEqual(self.train("two", 2), one)
        self.assertEqual(self.train("sharded", 2, run__shard_base=True, run__recompute="layer"), one)

    def test_chat_remembers(self):
        """Two turns run through; that they continue one state is shown by SequenceBatch's tests."""
        command = [graft_program.PROGRAM, "chat", self.model, "--temperature", "0", "--max-tokens", "8"]
        done = subprocess.run(list(map(str, command)), input="Hello\nAnd again\n", capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)


class Qwen3Next(DeltaAttention, Runs):
    settings = {"model_type": "qwen3_next"} | DELTA | EXPERTS


class Qwen35(DeltaAttention, Runs):
    settings = {"model_type": "qwen3_5_text"} | DELTA


class KimiLinear(DeltaAttention, Runs):
    settings = {"model_type": "kimi_linear", "num_key_value_heads": 4, "kv_lora_rank": 24, "qk_nope_head_dim": 14, "qk_rope_head_dim": 6, "v_head_dim": 12, "num_local_experts": 4,
                "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 48, "n_group": 1, "topk_group": 1, "rms_norm_eps": 1e-6, "linear_head_dim": 12,
                "linear_num_heads": 4, "pad_token_id": 2, "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"]}
    forms = ["peft", "safetensors", "gguf:F32"]


if __name__ == "__main__":
    graft_program.main()
