#!/usr/bin/env python3
"""Training through an export's rounding: merged back to the base's own 4-bit grid the fine-tune is kept, and the file holds what was trained.

  quantization_aware_test.py --graft PROGRAM
"""
import json
import pathlib
import shutil
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("runs", "support")]
import graft_program
from parallel_test import Runs, outcome
from tiny_chat_model import make_tiny_chat_model

AWARE = {"adapter__quantization_aware": "gguf:Q4_1", "optimizer__learning_rate": 1e-2}


class QuantizationAware(Runs):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.dense, cls.model = cls.model, cls.folder / "base.gguf"   # whose matrices lie on the grid of Q4_1
        done = graft_program.run("export", cls.dense, "--to", "gguf:Q4_1", "--out", cls.model)
        assert done.returncode == 0, done.stderr
        cls.completions = [{"path": str(cls.folder / "test.jsonl"), "format": "completion", "prompt": "{text}", "completion": "{label}"}]

    def certificate(self, name: str, form: str = "gguf-Q4_1") -> dict:
        return json.loads((self.folder / name / f"certificates/{form}.json").read_text())

    def exported(self, name: str) -> pathlib.Path:
        return self.folder / name / "exports/base.tuned.Q4_1.gguf"

    def tensors(self, name: str) -> dict[str, bytes]:
        from gguf import GGUFReader
        return {tensor.name: tensor.data.tobytes() for tensor in GGUFReader(self.exported(name)).tensors}

    def loss(self, model, *more) -> float:
        done = graft_program.run("eval", model, "--compute", "float32", "--json", *more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout.splitlines()[-1])["loss"]

    def test_own_grid_keeps_the_gain(self):
        changes = {"schedule__steps": 40, "data__test": self.completions}
        exports = [{"format": "gguf:Q4_1", "verify": {"max_mean_kl": 1e-9, "min_share_of_gain": 0.9}}, {"format": "gguf:Q8_0", "verify": {"max_mean_kl": 10}}]
        steps = self.train("aware", **AWARE, **changes, export=exports)[1]
        self.assertLess(steps[-1][1], steps[0][1] - 0.3, "the steps do not see what they change")
        kept = self.certificate("aware")
        self.assertNotIn("warning", kept)
        for form in ("gguf-Q4_1", "gguf-Q8_0"):
            self.assertIn("rounded to gguf:Q4_1", self.certificate("aware", form)["reference"])
        # The certificate's shares, from losses that `graft eval` measures; the run's model is the rounded one.
        rows = ("--recipe", self.recipe("rows", data__test=self.completions))
        base, trained, exported = self.loss(self.model, *rows), self.loss(self.folder / "aware"), self.loss(self.exported("aware"), *rows)
        self.assertLess(trained, base - 0.3)
        self.assertAlmostEqual(trained, exported, places=6)
        self.assertAlmostEqual(kept["share_of_gain_kept"]["loss"], (exported - base) / (trained - base), places=4)
        report = (self.folder / "aware/report.html").read_text()
        self.assertIn("of the gain kept by loss", report)
        self.assertIn("(adapter.quantization_aware)", report)

        # The same without: a warning, another share, and a threshold that nothing reaches.
        done = graft_program.run("train", self.recipe("plain", **AWARE | {"adapter__quantization_aware": "none"}, **changes,
                                                      export=[{"format": "gguf:Q4_1", "verify": {"max_mean_kl": 10, "min_share_of_gain": 1.5}}]))
        self.assertEqual(done.returncode, 1, done.stderr)
        lost = self.certificate("plain")
        trained, exported = self.loss(self.folder / "plain"), self.loss(self.exported("plain"), *rows)
        self.assertAlmostEqual(lost["share_of_gain_kept"]["loss"], (exported - base) / (trained - base), places=3)
        self.assertIn("of the gain by loss, at least 150 % were asked for", lost["problems"][0])
        self.assertIn("erases the fine-tune", lost["warning"])
        self.assertNotIn("reference", lost)

    def test_labelled_rows_have_a_share_by_task_score_or_the_reason_of_none(self):
        self.train("labelled", **AWARE, export=[{"format": "gguf:Q4_1", "verify": {"max_mean_kl": 1e-9, "min_share_of_gain": 0.9}}])   # which the known one reaches
        gain = self.certificate("labelled")["share_of_gain_kept"]
        self.assertIsNone(gain["task"])
        self.assertIn("of 11 rows more rightly than the base, fewer than 10", gain["task_reason"])

    def test_resumed_and_shared_out_it_ends_with_the_same_bytes(self):
        changes = AWARE | {"export": [{"format": "gguf:Q4_1", "verify": {"max_mean_kl": 1e-9}}], "run__keep": {"last": 9}}
        whole = self.train("whole", **changes)
        exported = self.exported("whole").read_bytes()
        resumed = self.folder / "whole"
        for step in resumed.glob("checkpoints/step-*"):
            if int(step.name.split("-")[1]) > 3:
                shutil.rmtree(step)
        shutil.rmtree(resumed / "exports")
        done = graft_program.run("train", self.folder / "whole.yaml", "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("resuming at step 3 of 8", done.stderr)
        self.assertEqual(outcome(resumed), whole)
        self.assertTrue(self.exported("whole").read_bytes() == exported)
        self.assertEqual(self.train("two", 2, **changes), whole)
        self.assertTrue(self.tensors("two") == self.tensors("whole"))   # the files' facts name the runs
        self.assertNotEqual(self.train("other", **changes | {"adapter__quantization_aware": "gguf:Q4_0", "export": []}), whole)

    def test_experts(self):
        experts = make_tiny_chat_model(self.folder / "experts", model_type="qwen3_moe", num_experts=4, num_experts_per_tok=2, norm_topk_prob=True, moe_intermediate_size=64, head_dim=16)
        self.train("mixture", **AWARE, model__base=str(experts), export=["gguf:Q4_1"])
        tuned = self.folder / "mixture/exports/experts.tuned.Q4_1.gguf"
        rows = ("--recipe", self.recipe("mixture_rows", model__base=str(experts), data__test=self.completions))
        self.train("mixture_loss", **AWARE, model__base=str(experts), data__test=self.completions, export=[])
        self.assertAlmostEqual(self.loss(tuned, *rows), self.loss(self.folder / "mixture_loss"), places=2)   # head and embeddings are rounded at the export only

    def test_forms_of_the_hub(self):
        for form in ("compressed-tensors:w4a16:g32", "nf4"):
            name = form.replace(":", "-")
            self.train(name, optimizer__learning_rate=1e-2, adapter__quantization_aware=form, model__base=str(self.dense), export=[{"format": form, "verify": {"max_mean_kl": 1e-4}}])
            self.assertIn(f"rounded to {form}", self.certificate(name, name)["reference"])   # head and norms are rounded to bfloat16 at the export only

    def test_error_feedback_lowers_the_divergence(self):
        kl = {}
        for rounding in ("nearest", "error_feedback"):
            exports = [{"format": form, "rounding": rounding, "verify": {"max_mean_kl": 10}} for form in ("gguf:Q4_0", "gguf:IQ4_NL", "compressed-tensors:w4a16:g32")]
            self.train(rounding, optimizer__learning_rate=1e-2, model__base=str(self.dense), export=exports)
            kl[rounding] = {one["format"]: self.certificate(rounding, one["format"].replace(":", "-"))["mean_kl"] for one in exports}
        for form, nearest in kl["nearest"].items():
            print(f"{form}: mean KL {nearest:.2e} rounded to nearest, {kl['error_feedback'][form]:.2e} with error feedback", file=sys.stderr)
            self.assertLess(kl["error_feedback"][form], 0.8 * nearest, form)
        done = graft_program.run("plan", self.recipe("refused", export=[{"format": "gguf:Q8_0", "rounding": "error_feedback"}]))
        self.assertIn("error feedback with a form of fewer than 8 bits", done.stdout + done.stderr)
        self.assertNotEqual(done.returncode, 0)

    def test_quantised_bases_are_what_is_trained_and_merged(self):
        exports = [{"format": "safetensors", "verify": {"max_mean_kl": 1e-4}}, {"format": "gguf:F32", "verify": {"max_mean_kl": 1e-9}}]
        plain = self.train("plain_base", model__base=str(self.dense), export=[])
        for form in ("nf4", "q4_k", "fp8"):
            self.assertNotEqual(self.train(f"base_{form}", model__base=str(self.dense), model__quantize_base=form, export=exports), plain)
            done = graft_program.run("plan", self.recipe(f"planned_{form}", model__base=str(self.dense), model__quantize_base=form))
            self.assertIn({"nf4": "NF4", "q4_k": "Q5_0", "fp8": "F8_E4M3_SCALED"}[form], done.stdout)
        done = graft_program.run("plan", self.recipe("twice", model__quantize_base="q4_0"))
        self.assertEqual(done.returncode, 2, done.stdout)
        self.assertIn("leave quantize_base out where the base is quantised already", done.stderr)

    def test_the_plan_says_what_it_does_and_what_does_not_go(self):
        done = graft_program.run("plan", self.recipe("planned", **AWARE))
        self.assertEqual(done.returncode, 0, done.stderr)
        for text in ("28 adapted matrices as gguf:Q4_1 will hold them (Q4_1 28;", "gguf:Q4_1 is not among the exports", "rounded weights 0.00"):
            self.assertIn(text, done.stdout)
        for changes, expected in (({"adapter__dropout": 0.1}, "expected adapter.dropout 0"), ({"adapter__quantization_aware": "peft"}, "gguf:Q8_0")):
            done = graft_program.run("plan", self.recipe("refused", **AWARE | changes))
            self.assertEqual(done.returncode, 2, done.stdout)
            self.assertIn(expected, done.stderr)


if __name__ == "__main__":
    graft_program.main()
