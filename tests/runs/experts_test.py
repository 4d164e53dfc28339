#!/usr/bin/env python3
"""Whole runs of a mixture of experts: plan, train with the load-balancing loss, exports with their certificates, several processes, a sharded base.

  experts_test.py --graft PROGRAM
"""
import json
import math
import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("runs", "support", "conformance")]
import graft_program
from parallel_test import Runs
from tiny_chat_model import make_tiny_chat_model

EXPERTS, CHOSEN = 4, 2


class Experts(Runs):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.dense = cls.model
        cls.model = make_tiny_chat_model(cls.folder / "experts", model_type="qwen3_moe", num_experts=EXPERTS, num_experts_per_tok=CHOSEN, norm_topk_prob=True,
                                         moe_intermediate_size=48, head_dim=16)

    def lines(self, name: str) -> list[dict]:
        return [json.loads(line) for line in (self.folder / name / "metrics.jsonl").read_text().splitlines()]

    def test_plan_lists_experts_once_and_counts_their_adapters(self):
        done = graft_program.run("plan", "--json", self.recipe("planned"))
        self.assertEqual(done.returncode, 0, done.stderr)
        plan = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(sum(tensor["adapter_parameters"] for tensor in plan["tensors"]), plan["adapter"]["parameters"])
        gates = [tensor for tensor in plan["tensors"] if "gate_proj" in tensor["name"]]
        self.assertEqual(len(gates), 4, gates)
        self.assertIn(f"({EXPERTS} experts)", gates[0]["name"])
        self.assertEqual(gates[0]["bytes"], EXPERTS * 48 * 64 * 4)
        self.assertEqual(gates[0]["adapter_parameters"], EXPERTS * 4 * (48 + 64))
        routers = [tensor for tensor in plan["tensors"] if tensor["name"].endswith("mlp.gate.weight")]
        self.assertEqual([tensor["adapter_parameters"] for tensor in routers], [0] * 4)

    def test_train_and_export(self):
        forms = ["peft", "peft:per-expert", "gguf:F32", "gguf-lora"]
        self.train("whole", export=[{"format": form, "verify": {"max_mean_kl": 1e-6}} for form in forms])
        lines = self.lines("whole")
        self.assertLess(lines[-1]["loss"], lines[0]["loss"])
        for line in lines:
            self.assertTrue(1 / EXPERTS <= line["largest_expert_share"] <= 1, line)
            self.assertTrue(0 < line["expert_entropy"] <= 1, line)
            self.assertTrue(0.9 * CHOSEN < line["load_balancing_loss"] < EXPERTS * CHOSEN, line)
        certificates = [json.loads(path.read_text()) for path in (self.folder / "whole/certificates").glob("*.json")]
        self.assertEqual(len(certificates), len(forms))
        self.assertTrue((self.folder / "whole/exports/peft-per-expert/adapter_config.json").exists())

    def test_load_balancing_spreads_the_tokens(self):
        figures = {}
        for weight in (0, 3):
            self.train(f"balance{weight}", objective={"load_balancing": weight}, schedule__steps=25, optimizer__learning_rate=1e-2)
            figures[weight] = self.lines(f"balance{weight}")[-1]["load_balancing_loss"]
        self.assertLess(figures[3] - CHOSEN, 0.3 * (figures[0] - CHOSEN))    # even routing: CHOSEN
        self.assertTrue(math.isfinite(figures[3]))

    def test_one_two_and_sharded(self):
        changes = {"objective": {"load_balancing": 0.1}}
        one = self.train("alone", **changes)
        self.assertEqual(self.train("two", 2, **changes), one)
        self.assertEqual(self.train("sharded", 2, run__shard_base=True, run__recompute="layer", **changes), one)
        self.assertEqual([line["expert_entropy"] for line in self.lines("two")], [line["expert_entropy"] for line in self.lines("alone")])

    def test_four_bit_experts_are_whole_again_after_a_sharded_run(self):
        """Their blocks lie in memory, not in a file that could be read again: what is exported at the end must be the base that was trained on."""
        from transformers import AutoModelForCausalLM
        import golden
        model = make_tiny_chat_model(self.folder / "four_bits", model_type="gpt_oss", num_local_experts=EXPERTS, num_experts_per_tok=CHOSEN, head_dim=16, intermediate_size=256,
                                     rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
        golden.write_mxfp4(AutoModelForCausalLM.from_pretrained(model), model / "model.safetensors")
        config = json.loads((model / "config.json").read_text()) | {"quantization_config": {"quant_method": "mxfp4"}}
        (model / "config.json").write_text(json.dumps(config))
        planned = graft_program.run("plan", "--no-probe", self.recipe("planned_blocks", model__base=str(model), run__shard_base=True))
        self.assertIn("MXFP4 blocks stay whole in every process", planned.stdout + planned.stderr)
        changes = {"model__base": str(model), "schedule__steps": 3, "export": [{"format": "safetensors", "verify": {"max_mean_kl": 1e-3}}]}
        self.assertEqual(self.train("blocks2", 2, run__shard_base=True, **changes), self.train("blocks", **changes))
        merged = [sorted((self.folder / name / "exports").rglob("*.safetensors"))[0].read_bytes() for name in ("blocks", "blocks2")]
        self.assertTrue(merged[0] == merged[1], "the base of the sharded run is another one")

    def test_what_does_not_go_is_said(self):
        for changes, expected in (({"adapter__dropout": 0.1}, "expected adapter.dropout 0 with adapters on experts"),
                                  ({"model__base": str(self.dense), "objective": {"load_balancing": 0.1}}, "which has no experts")):
            done = graft_program.run("plan", self.recipe("refused", **changes))
            self.assertEqual(done.returncode, 2, done.stdout)
            self.assertIn(expected, done.stderr)


if __name__ == "__main__":
    graft_program.main()
