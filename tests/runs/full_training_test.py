#!/usr/bin/env python3
"""adapter.kind full: the matrices of linear layers trained themselves. Losses of whole runs are PyTorch's, exports hold what was trained, a resumed run and two processes
end with the same bytes."""
import json
import pathlib
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import graft_program
from tiny_chat_model import make_tiny_chat_model, write_rows

STEPS, ROWS, RATE = 6, 12, 1e-2


class FullTraining(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory(prefix="graft-full-")
        cls.folder = pathlib.Path(cls.scratch.name)
        cls.base = make_tiny_chat_model(cls.folder / "base", initializer_range=0.1)
        cls.rows = write_rows(cls.folder / "rows.jsonl", ROWS)

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def recipe(self, name: str, **sections) -> pathlib.Path:
        recipe = {"accept_licence": "unknown", "model": {"base": str(self.base), "compute": "float32"}, "adapter": {"kind": "full"},
                  "data": {"train": [{"path": str(self.rows), "format": "labelled", "prompt": "{text}"}]}, "optimizer": {"learning_rate": RATE, "batch_rows": ROWS},
                  "schedule": {"steps": STEPS, "shape": "constant", "warmup": 0}, "run": {"threads": 2, "device": "cpu", "checkpoint_every": 2}, "export": []}
        for section, value in sections.items():
            recipe[section] = recipe[section] | value if isinstance(value, dict) else value
        recipe["run"] |= {"out": str(self.folder / name), "cache": str(self.folder / "cache")}
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(recipe))
        return path

    def run_graft(self, *arguments) -> str:
        done = graft_program.run(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def losses(self, name: str) -> list[float]:
        return [json.loads(line)["loss"] for line in (self.folder / name / "metrics.jsonl").read_text().splitlines()]

    def encoded(self) -> list[dict]:
        rows = [json.loads(line) for line in self.rows.read_text().splitlines()]
        asked = self.folder / "asked.jsonl"
        asked.write_text("".join(json.dumps({"messages": [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": row["label"]}]}) + "\n" for row in rows))
        return [json.loads(line) for line in self.run_graft("render", self.base, "--file", asked).splitlines()]

    def test_losses_and_weights_are_those_of_pytorch(self):
        import torch
        from safetensors.torch import load_file
        from transformers import AutoModelForCausalLM
        self.run_graft("train", self.recipe("full", export=["safetensors", {"format": "gguf:F32", "verify": {"max_mean_kl": 1e-9}}]))
        model = AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32)
        trained = {name: p for name, p in model.named_parameters() if name.endswith("_proj.weight")}
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name in trained
        optimizer = torch.optim.AdamW(trained.values(), lr=RATE, weight_decay=0)
        theirs = []
        for _ in range(STEPS):
            logits, labels = [], []
            for row in self.encoded():
                ids, kept = torch.tensor([row["ids"]]), torch.tensor(row["mask"][1:], dtype=torch.bool)
                logits.append(model(ids).logits[0, :-1][kept])
                labels.append(ids[0, 1:][kept])
            loss = torch.nn.functional.cross_entropy(torch.cat(logits), torch.cat(labels))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
            optimizer.step()
            theirs.append(loss.item())
        for step, (a, b) in enumerate(zip(self.losses("full"), theirs, strict=True), 1):
            self.assertLess(abs(a - b), 1e-5 * max(1, abs(b)), f"step {step}: graft {a}, PyTorch {b}")
        self.assertLess(theirs[-1], 0.5 * theirs[0], "nothing was learnt: these losses compare too little")
        exported = load_file(next((self.folder / "full/exports").glob("safetensors*/model.safetensors")))
        for name, parameter in trained.items():
            self.assertLess((exported[name].float() - parameter).norm() / parameter.norm(), 5e-3, name)   # AdamW's first steps turn on the gradients' signs
        # What is exported is what was trained, and answers as the run does.
        served = AutoModelForCausalLM.from_pretrained(next((self.folder / "full/exports").glob("safetensors*")), dtype=torch.float32)
        with torch.no_grad():
            again = torch.nn.functional.cross_entropy(torch.cat([served(torch.tensor([row["ids"]])).logits[0, :-1][torch.tensor(row["mask"][1:], dtype=torch.bool)] for row in self.encoded()]),
                                                      torch.cat([torch.tensor(row["ids"][1:])[torch.tensor(row["mask"][1:], dtype=torch.bool)] for row in self.encoded()]))
        self.run_graft("train", self.recipe("longer", schedule={"steps": STEPS + 1}))
        self.assertLess(abs(self.losses("longer")[-1] - again.item()), 5e-3 * again.item())   # the loss before its last update; the export rounds to bfloat16
        scored = json.loads(self.run_graft("eval", self.folder / "full", "--data", self.rows, "--compute", "float32", "--json").splitlines()[-1])
        self.assertGreater(scored["accuracy"], 0.5)

    def test_resumed_and_shared_out_runs_have_the_same_bytes(self):
        self.run_graft("train", self.recipe("one"))
        first = (self.folder / "one/adapter/adapter_model.safetensors").read_bytes()
        self.run_graft("train", self.recipe("resumed"))
        shutil.rmtree(self.folder / "resumed/adapter")
        shutil.rmtree(self.folder / "resumed/checkpoints" / f"step-{STEPS:06}")
        self.run_graft("train", self.folder / "resumed.yaml", "--resume")
        self.assertEqual((self.folder / "resumed/adapter/adapter_model.safetensors").read_bytes(), first)
        self.run_graft("launch", "--processes", "2", self.recipe("two"))
        self.assertEqual((self.folder / "two/adapter/adapter_model.safetensors").read_bytes(), first)
        going_on = self.recipe("going_on", adapter={"from": str(self.folder / "one/adapter")}, schedule={"steps": 1})
        self.run_graft("train", going_on)
        self.assertLess(self.losses("going_on")[0], self.losses("one")[-1] * 1.05)

    def test_what_cannot_be_is_refused(self):
        for export in ("peft", "gguf-lora"):
            done = graft_program.run("plan", self.recipe("as_adapter", export=[export]))
            self.assertEqual(done.returncode, 1)
            self.assertIn("expected a merged form of a model whose matrices were trained whole", done.stdout + done.stderr)
        experts = make_tiny_chat_model(self.folder / "experts", model_type="qwen3_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, head_dim=16)
        done = graft_program.run("plan", self.recipe("experts_run", model={"base": str(experts)}))
        self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
        self.assertIn("adapter.kind full without experts", done.stderr)
        self.assertIn("trained whole", self.run_graft("plan", self.recipe("planned")))


if __name__ == "__main__":
    graft_program.main()
