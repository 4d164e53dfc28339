#!/usr/bin/env python3
"""Whole runs of a model with latent attention: plan, train, exports with their certificates, a sharded base.

  latent_attention_test.py --graft PROGRAM
"""
import json
import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parents[1] / "support")]
import graft_program
from parallel_test import Runs
from tiny_chat_model import make_tiny_chat_model

HEADS, PLAIN, ROTARY, VALUE, RANK = 4, 14, 6, 12, 24


class LatentAttention(Runs):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = make_tiny_chat_model(
            cls.folder / "latent", model_type="deepseek_v3", num_key_value_heads=HEADS, q_lora_rank=20, kv_lora_rank=RANK, qk_nope_head_dim=PLAIN, qk_rope_head_dim=ROTARY,
            v_head_dim=VALUE, n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=48, n_group=2, topk_group=1, first_k_dense_replace=1,
            rms_norm_eps=1e-6)

    def test_plan_lists_a_split_matrix_once(self):
        done = graft_program.run("plan", "--json", self.recipe("planned"))
        self.assertEqual(done.returncode, 0, done.stderr)
        plan = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(sum(tensor["adapter_parameters"] for tensor in plan["tensors"]), plan["adapter"]["parameters"])
        lines = [tensor for tensor in plan["tensors"] if tensor["name"].endswith("kv_b_proj.weight")]
        self.assertEqual(len(lines), 4, lines)
        rows = HEADS * (PLAIN + VALUE)
        for line in lines:
            self.assertEqual((line["shape"], line["bytes"], line["adapter_parameters"]), ([rows, RANK], 4 * rows * RANK, 4 * (rows + RANK)))

    def test_train_and_export(self):
        forms = ["peft", "gguf:F32"]
        self.train("whole", export=[{"format": form, "verify": {"max_mean_kl": 1e-6}} for form in forms])
        lines = [json.loads(line) for line in (self.folder / "whole" / "metrics.jsonl").read_text().splitlines()]
        self.assertLess(lines[-1]["loss"], lines[0]["loss"])
        self.assertEqual(len(list((self.folder / "whole/certificates").glob("*.json"))), len(forms))

    def test_a_sharded_base_trains_alike(self):
        self.assertEqual(self.train("sharded", 2, run__shard_base=True, run__recompute="layer"), self.train("alone"))

    def test_a_gguf_lora_that_would_not_be_served_is_refused_before_training(self):
        done = graft_program.run("plan", self.recipe("unserved", export=[{"format": "gguf-lora"}]))
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("got some on kv_a_proj_with_mqa, kv_b_proj, q_a_proj, q_b_proj, which it multiplies without adapters", done.stdout)
        self.train("served", adapter__targets=["o_proj", "gate_up_proj"], export=[{"format": "gguf-lora", "verify": {"max_mean_kl": 1e-6}}])


if __name__ == "__main__":
    graft_program.main()
