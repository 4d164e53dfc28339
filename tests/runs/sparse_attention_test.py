#!/usr/bin/env python3
"""Whole runs of a model whose indexer chooses which keys a token sees: rows are longer than index_topk, layers share a choice.

  sparse_attention_test.py --graft PROGRAM
"""
import json
import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parents[1] / "support")]
import graft_program
from parallel_test import Runs
from tiny_chat_model import make_tiny_chat_model


class SparseAttention(Runs):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = make_tiny_chat_model(
            cls.folder / "sparse", model_type="glm_moe_dsa", num_key_value_heads=4, q_lora_rank=20, kv_lora_rank=24, qk_nope_head_dim=14, qk_rope_head_dim=32, v_head_dim=12,
            n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=48, first_k_dense_replace=1, rms_norm_eps=1e-6, index_n_heads=8,
            index_head_dim=64, index_topk=16, indexer_types=["full", "shared", "full", "shared"])

    def test_train_and_export(self):
        forms = ["peft", "gguf:F32"]
        self.train("whole", export=[{"format": form, "verify": {"max_mean_kl": 1e-6}} for form in forms])
        lines = [json.loads(line) for line in (self.folder / "whole" / "metrics.jsonl").read_text().splitlines()]
        self.assertLess(lines[-1]["loss"], lines[0]["loss"])
        self.assertEqual(len(list((self.folder / "whole/certificates").glob("*.json"))), len(forms))

    def test_recomputed_and_sharded_runs_are_the_same(self):
        alone = self.train("alone", run__recompute="none")
        self.assertEqual(self.train("recomputed", run__recompute="layer"), alone)
        self.assertEqual(self.train("sharded", 2, run__shard_base=True, run__recompute="layer"), alone)

    def test_the_indexer_takes_no_adapter(self):
        done = graft_program.run("plan", "--json", self.recipe("planned"))
        self.assertEqual(done.returncode, 0, done.stderr)
        indexers = [tensor for tensor in json.loads(done.stdout.splitlines()[-1])["tensors"] if ".indexer." in tensor["name"]]
        self.assertEqual(len(indexers), 2 * 5, "two layers have one: three matrices and a norm")
        self.assertEqual(sum(tensor["adapter_parameters"] for tensor in indexers), 0)
        done = graft_program.run("plan", self.recipe("targeted", adapter__targets=["wq_b"]))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("wq_b", done.stderr + done.stdout)

    def test_decoding_goes_on_beyond_index_topk(self):
        done = graft_program.run("chat", self.model, "--prompt", "rose blood brick sky sea ink leaf frog moss", "--max-tokens", "40")
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    graft_program.main()
