#!/usr/bin/env python3
"""Runs that learn from a teacher: their losses are those of TRL's and torchtune's published formulas in PyTorch over full logits, from a cache too; a teach run that
is killed goes on; what cannot be learnt from is refused."""
import json
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import graft_program
from tiny_chat_model import make_tiny_chat_model, write_rows

STEPS, ROWS = 6, 12
SOURCE = {"format": "labelled", "text": "text", "label": "label", "prompt": "{text}"}


def trl_divergence(student, teacher, beta: float, temperature: float):
    """TRL's generalised Jensen-Shannon divergence of each token (Agarwal et al. 2023): beta 0 is KL(teacher || student), beta 1 KL(student || teacher)."""
    import torch
    p, q = torch.log_softmax(teacher / temperature, -1), torch.log_softmax(student / temperature, -1)
    kl = lambda a, b: (a.exp() * (a - b)).sum(-1)
    if beta == 0:
        return kl(p, q)
    if beta == 1:
        return kl(q, p)
    mixture = torch.logsumexp(torch.stack([p + torch.log(torch.tensor(beta)), q + torch.log(torch.tensor(1 - beta))]), 0)
    return beta * kl(p, mixture) + (1 - beta) * kl(q, mixture)


def torchtune_forward_kl(student, teacher):
    """torchtune's forward KL of each token: cross-entropy against the teacher's probabilities, without the teacher's entropy."""
    import torch
    return -(torch.softmax(teacher, -1) * torch.log_softmax(student, -1)).sum(-1)


def skewed_divergence(logits, other, skew: float):
    """DistiLLM's KL(P || skew P + (1 - skew) Q) of each token, P by the first logits."""
    import torch
    p, q = torch.softmax(logits, -1), torch.softmax(other, -1)
    return (p * (p.log() - (skew * p + (1 - skew) * q).log())).sum(-1)


def update(optimizer, student, loss) -> None:
    import torch
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()


def states_after(model, ids, layers: list[int]):
    """Of all tokens but the last: logits, and the residual stream after each of the layers, before any norm."""
    states = {}
    hooks = [model.model.layers[layer].register_forward_hook(lambda module, inputs, output, layer=layer: states.update({layer: output[0] if isinstance(output, tuple) else output}))
             for layer in set(layers)]
    logits = model(ids).logits[0, :-1]
    for hook in hooks:
        hook.remove()
    return logits, [states[layer][0, :-1] for layer in layers]


class Distillation(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory(prefix="graft-distill-")
        cls.folder = pathlib.Path(cls.scratch.name)
        cls.student = make_tiny_chat_model(cls.folder / "student", initializer_range=0.2)
        cls.teacher = make_tiny_chat_model(cls.folder / "teacher", initializer_range=0.15, hidden_size=96, num_hidden_layers=3)
        cls.rows = write_rows(cls.folder / "rows.jsonl", ROWS)

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def recipe(self, name: str, objective: dict, teacher: dict, rows: pathlib.Path | None = None, **changes) -> pathlib.Path:
        recipe = {"accept_licence": "unknown", "model": {"base": str(self.student), "compute": "float32"}, "adapter": {"rank": 4, "alpha": 8},
                  "data": {"train": [SOURCE | {"path": str(rows or self.rows)}]}, "objective": {"kind": "distill"} | objective,
                  "teacher": {"model": str(self.teacher), "compute": "float32"} | teacher, "optimizer": {"learning_rate": 1e-2, "batch_rows": ROWS},
                  "schedule": {"steps": STEPS, "shape": "constant", "warmup": 0},
                  "run": {"out": str(self.folder / name), "cache": str(self.folder / "cache"), "threads": 2, "device": "cpu"}, "export": []}
        for key, value in changes.items():
            section, _, field = key.partition("__")
            recipe[section] = recipe.get(section, {}) | {field: value} if field else value
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(recipe))
        return path

    def run_recipe(self, command: str, recipe: pathlib.Path, *arguments) -> str:
        done = graft_program.run(command, recipe, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout + done.stderr

    def lines(self, name: str) -> list[dict]:
        return [json.loads(line) for line in (self.folder / name / "metrics.jsonl").read_text().splitlines()]

    def train(self, name: str, objective: dict, teacher: dict | None = None, rows: pathlib.Path | None = None, **changes) -> list[dict]:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        self.run_recipe("train", self.recipe(name, objective, teacher or {}, rows, **changes))
        return self.lines(name)

    def refused(self, command: str, recipe: pathlib.Path, *parts: str) -> None:
        done = graft_program.run(command, recipe)
        self.assertIn(done.returncode, (1, 2), done.stdout + done.stderr)
        for part in parts:
            self.assertIn(part, done.stdout + done.stderr)

    def peer_on_policy(self, loss_of, most_tokens: int) -> list[float]:
        """The same where the student answers each prompt by greedy decoding, and is taught on its own answers."""
        import torch
        student, teacher, encoded, optimizer = self.peer_models()
        losses = []
        for _ in range(STEPS):
            ours, theirs = [], []
            for row in encoded:
                ids = row["ids"][:row["mask"].index(1)]
                prompt = len(ids)
                while len(ids) < prompt + most_tokens and (len(ids) == prompt or ids[-1] != 257):
                    with torch.no_grad():
                        ids = ids + [student(torch.tensor([ids])).logits[0, -1].argmax().item()]
                with torch.no_grad():
                    theirs.append(teacher(torch.tensor([ids])).logits[0, prompt - 1:-1])
                ours.append(student(torch.tensor([ids])).logits[0, prompt - 1:-1])
            loss = loss_of(torch.cat(ours), torch.cat(theirs))
            update(optimizer, student, loss)
            losses.append(loss.item())
        return losses

    def peer_matching(self, teacher: pathlib.Path, pairs: list[tuple[int, int]], weight: float, projections: list, all_tokens: bool) -> list[float]:
        """The losses of STEPS steps of 0.4 cross-entropy + 0.6 forward KL + weight x hidden-state loss. projections: of each pair; empty where widths are equal."""
        import torch
        student, teacher, encoded, optimizer = self.peer_models(teacher)
        if projections:
            optimizer.add_param_group({"params": projections})
        losses = []
        for _ in range(STEPS):
            entropies, divergences, distances = [], [], []
            for row in encoded:
                ids, supervised = torch.tensor([row["ids"]]), torch.tensor(row["mask"][1:], dtype=torch.bool)
                taught = torch.ones_like(supervised) if all_tokens else supervised
                with torch.no_grad():
                    p, theirs = states_after(teacher, ids, [pair[1] for pair in pairs])
                q, ours = states_after(student.get_base_model(), ids, [pair[0] for pair in pairs])
                entropies.append(torch.nn.functional.cross_entropy(q[supervised], ids[0, 1:][supervised], reduction="none"))
                divergences.append(trl_divergence(q[taught], p[taught], 0, 1))
                projected = [h @ w.T for h, w in zip(ours, projections)] if projections else ours
                distances += [((h - t).square().mean(-1) / t.square().mean(-1))[taught] for h, t in zip(projected, theirs, strict=True)]
            loss = 0.4 * torch.cat(entropies).mean() + 0.6 * torch.cat(divergences).mean() + weight * torch.cat(distances).mean()
            update(optimizer, student, loss)
            losses.append(loss.item())
        return losses

    def peer_models(self, teacher: pathlib.Path | None = None):
        """Student with graft's first adapter, teacher, the rows as graft renders them, and the student's optimizer."""
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
        if not (self.folder / "first").exists():
            self.train("first", {}, schedule__steps=1, optimizer__learning_rate=1e-30)
        load = lambda path: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        student, teacher = PeftModel.from_pretrained(load(self.student), self.folder / "first/adapter", is_trainable=True), load(teacher or self.teacher).eval()
        rows = [json.loads(line) for line in self.rows.read_text().splitlines()]
        asked = self.folder / "asked.jsonl"
        asked.write_text("".join(json.dumps({"messages": [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": row["label"]}]}) + "\n" for row in rows))
        encoded = [json.loads(line) for line in graft_program.run("render", self.student, "--file", asked).stdout.splitlines()]
        return student, teacher, encoded, torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=1e-2, weight_decay=0)

    def peer(self, loss_of, all_tokens: bool = False) -> list[float]:
        """The losses of STEPS steps in PyTorch from graft's first adapter. loss_of(student logits, teacher logits, labels) of the supervised tokens; with all_tokens of
        all, and which of them are supervised."""
        import torch
        student, teacher, encoded, optimizer = self.peer_models()
        losses = []
        for _ in range(STEPS):
            ours, theirs, labels, supervised = [], [], [], []
            for row in encoded:
                ids = torch.tensor([row["ids"]])
                with torch.no_grad():
                    teacher_logits = teacher(ids).logits[0, :-1]
                kept = torch.tensor(row["mask"][1:], dtype=torch.bool)
                supervised.append(kept)
                if all_tokens:
                    kept = torch.ones_like(kept)
                ours.append(student(ids).logits[0, :-1][kept])
                theirs.append(teacher_logits[kept])
                labels.append(ids[0, 1:][kept])
            loss = loss_of(torch.cat(ours), torch.cat(theirs), torch.cat(labels), *([torch.cat(supervised)] if all_tokens else []))
            update(optimizer, student, loss)
            losses.append(loss.item())
        return losses

    def assert_same_losses(self, ours: list[float], theirs: list[float]) -> None:
        for step, (a, b) in enumerate(zip(ours, theirs, strict=True), 1):
            self.assertLess(abs(a - b), 1e-5 * max(1, abs(b)), f"step {step}: graft {a}, PyTorch {b}")
        self.assertLess(theirs[-1], 0.9 * theirs[0], "nothing was learnt: these losses compare too little")

    def test_losses_are_those_of_the_published_formulas(self):
        import torch
        entropy = torch.nn.functional.cross_entropy
        for name, objective, loss_of in (
                ("forward", {"divergence": "forward_kl"}, lambda s, t, y: trl_divergence(s, t, 0, 1).mean()),
                ("reverse", {"divergence": "reverse_kl", "temperature": 2}, lambda s, t, y: trl_divergence(s, t, 1, 2).mean()),
                ("jensen", {"divergence": "jensen_shannon", "jensen_shannon_weight": 0.3}, lambda s, t, y: trl_divergence(s, t, 0.3, 1).mean()),
                ("skewed", {"divergence": "skewed_forward_kl", "skew": 0.2}, lambda s, t, y: skewed_divergence(t, s, 0.2).mean()),
                ("skewed reverse", {"divergence": "skewed_reverse_kl"}, lambda s, t, y: skewed_divergence(s, t, 0.1).mean()),
                ("mixed", {"teacher_share": 0.4, "temperature": 1.5, "times_temperature_squared": True},
                 lambda s, t, y: 0.6 * entropy(s, y) + 0.4 * 1.5 ** 2 * trl_divergence(s, t, 0, 1.5).mean())):
            with self.subTest(name):
                self.assert_same_losses([line["loss"] for line in self.train(name, objective)], self.peer(loss_of))

    def test_minifinetuning(self):
        """As Model-Optimizer's MFTLoss corrects the teacher. The gradient in PyTorch is that of KL from the corrected distribution; what graft reports differs from it by what does not depend on the student."""
        import torch
        student, teacher, encoded, optimizer = self.peer_models()
        lines = self.train("lead", {"minifinetuning": 0.2})
        for step, line in enumerate(lines, 1):
            learnt, reported = [], []
            for row in encoded:
                ids, kept = torch.tensor([row["ids"]]), torch.tensor(row["mask"][1:], dtype=torch.bool)
                with torch.no_grad():
                    p = torch.softmax(teacher(ids).logits[0, :-1][kept], -1)
                label = torch.nn.functional.one_hot(ids[0, 1:][kept], p.shape[1]).float()
                wrong, right = (p * (1 - label)).amax(-1), (p * label).sum(-1)
                mixed = torch.where(right > wrong, ((right + 0.2).clamp(max=1) - right) / (1 - right), (0.2 + wrong - right) / (1 + wrong - right))[:, None]
                target = (1 - mixed) * p + mixed * label
                log_q = torch.log_softmax(student(ids).logits[0, :-1][kept], -1)
                learnt.append((target * (target.log() - log_q)).nan_to_num(0).sum(-1))
                reported.append((mixed * label * -log_q + (1 - mixed) * p * (p.log() - log_q)).detach().sum(-1))
            update(optimizer, student, torch.cat(learnt).mean())
            expected = torch.cat(reported).mean().item()
            self.assertLess(abs(line["loss"] - expected), 1e-5 * expected, f"step {step}")
        self.assertLess(lines[-1]["loss"], 0.9 * lines[0]["loss"])
        self.refused("plan", self.recipe("lead_cached", {"minifinetuning": 0.2}, {"signal": "cached"}), "expected teacher.signal online with objective.minifinetuning")

    def test_a_teacher_is_followed_on_prompts_too(self):
        import torch
        objective = {"teacher_share": 0.7, "teacher_tokens": "all"}
        loss_of = lambda s, t, y, kept: 0.3 * torch.nn.functional.cross_entropy(s[kept], y[kept]) + 0.7 * trl_divergence(s, t, 0, 1).mean()
        theirs = self.peer(loss_of, all_tokens=True)
        self.assert_same_losses([line["loss"] for line in self.train("all_tokens", objective, data__validation_fraction=0)], theirs)
        cached = {"signal": "cached", "entries": "top", "count": 599}
        self.run_recipe("teach", self.recipe("teach_all", objective, cached))
        for a, b in zip([line["loss"] for line in self.train("all_cached", objective, cached)], theirs, strict=True):
            self.assertLess(abs(a - b), 0.01 * b)

    def test_the_student_is_taught_on_its_own_answers(self):
        greedy = {"divergence": "reverse_kl", "on_policy": {"share": 1, "temperature": 0, "max_new_tokens": 6}}
        lines = self.train("on_policy", greedy)
        theirs = self.peer_on_policy(lambda s, t: trl_divergence(s, t, 1, 1).mean(), 6)
        for step, (line, loss) in enumerate(zip(lines, theirs, strict=True), 1):   # of other answers at every step, so that it need not fall
            self.assertLess(abs(line["loss"] - loss), 1e-5 * loss, f"step {step}")
        self.assertGreater(max(theirs) / min(theirs), 1.02)
        self.assertEqual([line["on_policy_rows"] for line in lines], [ROWS] * STEPS)
        self.assertIn("on policy: the student answers 100 %", " ".join(self.run_recipe("plan", self.recipe("on_policy_plan", greedy, {})).split()))

    def test_on_policy_runs_repeat_their_bytes_and_a_resumed_one_too(self):
        objective = {"teacher_share": 0.5, "on_policy": {"share": 0.5, "every": 3, "max_new_tokens": 5}}
        changes = {"run__checkpoint_every": 1, "run__seed": 9}
        lines = self.train("sampled", objective, **changes)
        self.assertEqual([line["on_policy_rows"] for line in lines], [ROWS // 2] * STEPS)
        for line in lines:
            both = line["supervised_tokens"]
            own = (both - line["on_policy_tokens"]) / both
            divergence = own * line["divergence"] + (1 - own) * line["on_policy_divergence"]
            self.assertAlmostEqual(line["loss"], 0.5 * line["cross_entropy"] + 0.5 * divergence, delta=1e-5 * line["loss"])
        self.train("sampled_again", objective, **changes)
        adapters = [(self.folder / name / "adapter/adapter_model.safetensors").read_bytes() for name in ("sampled", "sampled_again")]
        self.assertEqual(*adapters)
        shutil.rmtree(self.folder / "sampled_again/adapter")
        shutil.rmtree(self.folder / "sampled_again/checkpoints" / f"step-{STEPS:06}")   # the one before is in the middle of three steps' answers
        self.run_recipe("train", self.folder / "sampled_again.yaml", "--resume")
        self.assertEqual((self.folder / "sampled_again/adapter/adapter_model.safetensors").read_bytes(), adapters[0])
        two = self.recipe("two", objective, {}, **changes)
        done = graft_program.run("launch", "--processes", "2", two)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.folder / "two/adapter/adapter_model.safetensors").read_bytes(), adapters[0])

    def test_prompts_without_answers_are_learnt_from_on_policy_alone(self):
        prompts = self.folder / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": json.loads(line)["text"]}) + "\n" for line in self.rows.read_text().splitlines()))
        data = {"data": {"train": [{"path": str(prompts), "format": "prompts"}]}}
        lines = self.train("prompts", {"on_policy": {"share": 0.1, "max_new_tokens": 5}}, **data)
        self.assertEqual([line["on_policy_rows"] for line in lines], [ROWS] * STEPS)
        self.refused("plan", self.recipe("prompts_alone", {}, {}, **data), "format prompts, which has no answers to learn from")
        self.refused("plan", self.recipe("cached_on_policy", {"on_policy": {"share": 0.5}}, {"signal": "cached"}), "expected objective.on_policy.share 0")

    def test_a_teachers_answers_become_rows(self):
        tuned = self.folder / "tuned"   # a teacher that has learnt to answer with a label
        rows = write_rows(self.folder / "taught_rows.jsonl", 40, seed=7)
        self.train("tuned", {"kind": "sft"}, {"model": "none"}, rows, adapter={"kind": "full"}, schedule__steps=100, optimizer__learning_rate=5e-3)
        prompts = self.folder / "answered_prompts.jsonl"
        asked = [json.loads(line)["text"] for line in rows.read_text().splitlines()][:6]
        prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in asked))
        teacher = {"model": str(tuned), "signal": "answers", "answers": {"max_new_tokens": 8}}
        data = {"data": {"train": [{"path": str(prompts), "format": "prompts"}]}, "optimizer": {"learning_rate": 1e-2, "batch_rows": 4}}
        recipe = self.recipe("answers", {}, teacher, **data)
        self.refused("plan", recipe, "REFUSED", "graft teach")
        new_rows = lambda: json.loads(graft_program.run("teach", recipe, "--json").stdout.strip().splitlines()[-1])["new_rows"]
        self.assertEqual([new_rows(), new_rows()], [6, 0])
        lines = self.train("answers", {}, teacher, **data)
        self.assertNotIn("divergence", lines[0])
        # The same as rows with these answers, asked of the teacher by another command.
        chat = ["chat", tuned, "--compute", "float32", "--max-tokens", "8", "--prompt"]
        replies = [graft_program.run(*chat, text).stdout.removesuffix("\n") for text in asked]
        self.assertIn(replies[0], ("red", "blue", "green"), "the teacher has not learnt its task: this test shows little")
        written = self.folder / "written.jsonl"
        written.write_text("".join(json.dumps({"prompt": text, "completion": reply}) + "\n" for text, reply in zip(asked, replies)))
        sft = self.train("written", {"kind": "sft"}, {"model": "none"}, **data | {"data": {"train": [{"path": str(written), "format": "completion"}]}})
        self.assertEqual([line["loss"] for line in lines], [line["loss"] for line in sft])
        self.refused("train", self.recipe("right", {}, teacher | {"answers": {"max_new_tokens": 8, "keep": "right"}}, **data), "expected at least one row")
        labelled = {"data": {"train": [SOURCE | {"path": str(rows)}]}}
        right = teacher | {"answers": {"max_new_tokens": 8, "keep": "right"}}
        self.run_recipe("teach", self.recipe("teach_right", {}, right, **labelled))
        plan = self.run_recipe("plan", self.recipe("plan_right", {}, right, **labelled))
        counts = re.search(r"(\d+) answers learnt; left out: (\d+) unfinished, (\d+) that are not", plan)
        self.assertEqual(sum(int(count) for count in counts.groups()), 40, plan)
        self.refused("plan", self.recipe("documents", {}, teacher, data={"train": [{"path": str(self.rows), "format": "text"}]}), "format text")

    def test_a_teacher_that_is_shown_a_demonstration(self):
        shown = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "rose 1"}, {"role": "assistant", "content": "red"}]
        demonstration = self.folder / "demonstration.json"
        demonstration.write_text(json.dumps({"messages": shown}))
        import torch
        student, teacher, encoded, optimizer = self.peer_models()
        prefix = "".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in shown)
        from tokenizers import Tokenizer
        before = Tokenizer.from_file(str(self.student / "tokenizer.json")).encode(prefix).ids
        theirs = []
        for _ in range(STEPS):
            losses, count = 0, 0
            for row in encoded:
                kept = torch.tensor(row["mask"][1:], dtype=torch.bool)
                with torch.no_grad():
                    p = teacher(torch.tensor([before + row["ids"]])).logits[0, len(before):-1][kept]
                losses = losses + trl_divergence(student(torch.tensor([row["ids"]])).logits[0, :-1][kept], p, 0, 1).sum()
                count += kept.sum().item()
            loss = losses / count
            update(optimizer, student, loss)
            theirs.append(loss.item())
        teacher = {"demonstration": str(demonstration)}
        self.assert_same_losses([line["loss"] for line in self.train("demonstrated", {}, teacher)], theirs)
        cached = teacher | {"signal": "cached", "entries": "top", "count": 599}
        self.run_recipe("teach", self.recipe("teach_demonstrated", {}, cached))
        for a, b in zip([line["loss"] for line in self.train("demonstrated_cached", {}, cached)], theirs, strict=True):
            self.assertLess(abs(a - b), 0.01 * b)
        self_taught = self.train("demonstrated_self", {"on_policy": {"share": 1, "max_new_tokens": 4}}, {"model": "self"} | teacher)
        self.assertGreater(self_taught[0]["divergence"] + self_taught[0]["on_policy_divergence"], 1e-3)   # the base with the demonstration is not the base without
        demonstration.write_text(json.dumps({"messages": [{"role": "user", "content": "?"}]}))
        self.refused("plan", self.recipe("no_answer", {}, teacher), "ends with a system message or an answer")

    def test_hidden_states_are_matched_to_the_teachers(self):
        import torch
        from safetensors.torch import load_file
        deep = make_tiny_chat_model(self.folder / "deep", initializer_range=0.15, num_hidden_layers=8)
        packed = {"data__pack_tokens": 200, "run__recompute": "layer"}
        for name, teacher, pairs, layers, all_tokens in (("half", deep, [(0, 1), (1, 3), (2, 5), (3, 7)], "even", False), ("narrower", self.teacher, [(1, 0), (3, 2)], [[1, 0], [3, 2]], True)):
            with self.subTest(name):
                objective = {"teacher_share": 0.6, "teacher_tokens": "all" if all_tokens else "supervised", "hidden_states": {"weight": 0.3, "layers": layers}}
                self.train("first_matched", objective, {"model": str(teacher)}, schedule__steps=1, optimizer__learning_rate=1e-30)
                begin = load_file(self.folder / "first_matched/checkpoints/step-000001/state.safetensors")["parameters"]
                projections = [] if teacher == deep else [torch.nn.Parameter(part.reshape(96, 64).clone()) for part in begin[-2 * 96 * 64:].chunk(2)]
                theirs = self.peer_matching(teacher, pairs, 0.3, projections, all_tokens)
                lines = self.train(name, objective, {"model": str(teacher)}, **packed)
                self.assert_same_losses([line["loss"] for line in lines], theirs)
                for line in lines:
                    self.assertAlmostEqual(line["loss"], 0.4 * line["cross_entropy"] + 0.6 * line["divergence"] + 0.3 * line["hidden_state_loss"], delta=1e-6 * line["loss"])
                self.assertLess(lines[-1]["hidden_state_loss"], lines[0]["hidden_state_loss"])
                self.assertTrue(all("lora_" in key for key in load_file(self.folder / name / "adapter/adapter_model.safetensors")), "a projection was exported")
                plan = " ".join(self.run_recipe("plan", self.recipe(f"{name}_plan", objective, {"model": str(teacher)})).split())
                self.assertIn("0.3 |W h - t|^2 / |t|^2 + 0.4 cross-entropy + 0.6 KL(P || Q);", plan)
                at_start = float(re.search(r"hidden-state loss ([\d.]+)", plan)[1])
                self.assertLess(abs(at_start - lines[0]["hidden_state_loss"]), 1e-3 + 0.1 * at_start)   # of the first rows
                self.assertIn("0-1 1-3 2-5 3-7; both 64 wide" if teacher == deep else "1-0 3-2; each through a W [96, 64]", plan)

        cut = make_tiny_chat_model(self.folder / "cut")
        (cut / "kept.json").write_text(json.dumps({"base": "teacher", "hidden": list(range(8, 72))}))
        plan = self.run_recipe("plan", self.recipe("cut_plan", {"hidden_states": {"weight": 0.3}}, {}, model={"base": str(cut), "compute": "float32"}))
        self.assertIn("begins with the channels' places", " ".join(plan.split()))

    def test_runs_that_match_hidden_states_repeat_their_bytes_and_a_resumed_one_too(self):
        objective = {"teacher_share": 0.5, "on_policy": {"share": 0.5, "every": 3, "max_new_tokens": 5}, "hidden_states": {"weight": 0.2}}
        changes = {"run__checkpoint_every": 1, "run__seed": 9, "data__pack_tokens": 200}
        for line in self.train("matched", objective, **changes):
            both = line["supervised_tokens"]
            own = (both - line["on_policy_tokens"]) / both
            divergence = own * line["divergence"] + (1 - own) * line["on_policy_divergence"]
            self.assertAlmostEqual(line["loss"], 0.5 * line["cross_entropy"] + 0.5 * divergence + 0.2 * line["hidden_state_loss"], delta=1e-5 * line["loss"])
        last = f"checkpoints/step-{STEPS:06}/state.safetensors"
        state = (self.folder / "matched" / last).read_bytes()
        self.train("matched_again", objective, **changes)
        self.assertEqual((self.folder / "matched_again" / last).read_bytes(), state)
        shutil.rmtree(self.folder / "matched_again/adapter")
        shutil.rmtree((self.folder / "matched_again" / last).parent)
        self.run_recipe("train", self.folder / "matched_again.yaml", "--resume")
        self.assertEqual((self.folder / "matched_again" / last).read_bytes(), state)
        done = graft_program.run("launch", "--processes", "2", self.recipe("matched_two", objective, {}, **changes))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.folder / "matched_two" / last).read_bytes(), state)
        self.assertEqual((self.folder / "matched_two/adapter/adapter_model.safetensors").read_bytes(), (self.folder / "matched/adapter/adapter_model.safetensors").read_bytes())

    def test_hidden_states_are_those_of_a_teacher_that_is_there(self):
        matched = {"hidden_states": {"weight": 0.1}}
        for name, objective, teacher, part in (("cached", {}, {"signal": "cached"}, "0 with teacher.signal cached"), ("answers", {}, {"signal": "answers"}, "0 with teacher.signal answers"),
                                               ("spans", {"divergence": "spans"}, {}, "0 with objective.divergence spans"), ("sft", {"kind": "sft"}, {"model": "none"}, "0 with objective.kind sft"),
                                               ("server", {}, {"model": "none", "server": "http://127.0.0.1:1/v1", "licence": "mit", "signal": "cached", "entries": "top"}, "0 with teacher.signal cached")):
            self.refused("plan", self.recipe(f"matched_{name}", matched | objective, teacher), "expected objective.hidden_states.weight " + part)
        for layers, part in (([[4, 0]], "from 0 to 3 of the student and from 0 to 2 of the teacher, got [4, 0]"), ([[0]], "a layer of the student and one of the teacher"), ([], "even or a list")):
            self.refused("plan", self.recipe("matched_layers", {"hidden_states": {"weight": 0.1, "layers": layers}}, {}), part)

    def test_torchtunes_forward_kl_is_the_same_up_to_the_teachers_entropy(self):
        import torch
        entropies = []

        def loss_of(student, teacher, labels):
            entropies.append(-(torch.softmax(teacher, -1) * torch.log_softmax(teacher, -1)).sum(-1).mean().item())
            return torchtune_forward_kl(student, teacher).mean()
        theirs = self.peer(loss_of)
        ours = [line["divergence"] for line in self.train("tune", {})]
        for a, b, entropy in zip(ours, theirs, entropies, strict=True):
            self.assertLess(abs(a + entropy - b), 1e-5 * b)

    def test_the_parts_of_the_loss_and_its_formula_are_shown(self):
        objective = {"teacher_share": 0.25, "divergence": "jensen_shannon"}
        for line in self.train("parts", objective):
            self.assertAlmostEqual(line["loss"], 0.75 * line["cross_entropy"] + 0.25 * line["divergence"], delta=1e-6 * line["loss"])
        formula = "0.75 cross-entropy + 0.25 [0.5 KL(P || M) + 0.5 KL(Q || M)], M = 0.5 P + 0.5 Q"
        self.assertIn(formula, self.run_recipe("plan", self.recipe("parts2", objective, {})))
        self.assertIn(formula, (self.folder / "parts/report.html").read_text())
        manifest = json.loads((self.folder / "parts/manifest.json").read_text())
        self.assertEqual(manifest["teacher"]["name"], "teacher")
        self.assertEqual(len(manifest["teacher"]["files"][0]["sha256"]), 64)

    def test_teacher_and_student_are_scored_on_the_same_rows(self):
        for name, teacher in (("scored", {}), ("scored_cached", {"signal": "cached", "entries": "top", "count": 16})):
            data = {"data__test": [SOURCE | {"path": str(self.rows)}]}
            if teacher:
                self.run_recipe("teach", self.recipe("teach_scored", {}, teacher, **data))
            changes = {} if name == "scored" else {"report": {"compare": str(self.folder / "scored"), "cost_per_hour": 3.6}}
            self.train(name, {}, teacher, **data, **changes)
            scores = json.loads((self.folder / name / "evaluation.json").read_text())
            difference = scores["after"]["accuracy"] - scores["teacher"]["accuracy"]
            self.assertAlmostEqual(scores["student_minus_teacher"]["accuracy"], difference, places=9)
            low, high = scores["student_minus_teacher"]["interval"]
            self.assertTrue(low <= difference <= high)
            self.assertIn("teacher, accuracy", (self.folder / name / "report.html").read_text())
        first, second = (json.loads((self.folder / name / "evaluation.json").read_text()) for name in ("scored", "scored_cached"))
        self.assertEqual(second["compared"]["run"], "scored")
        self.assertAlmostEqual(second["compared"]["difference"], second["after"]["accuracy"] - first["after"]["accuracy"], places=9)
        self.assertEqual(second["right_answers"].count("1"), round(second["after"]["accuracy"] * ROWS))
        speed = second["speed"]["after"]
        self.assertAlmostEqual(speed["cost_per_million_tokens"], 1e3 / speed["tokens_per_s"], places=6)
        self.assertIn("Beside others", (self.folder / "scored_cached/report.html").read_text())

    def test_forgetting_is_measured_on_text_of_another_kind(self):
        import torch
        from peft import PeftModel
        from tokenizers import Tokenizer
        from transformers import AutoModelForCausalLM
        texts = ["The harbour was quiet at dawn.", "Nine engineers signed the report, and none of them agreed.", "x"]
        general = self.folder / "general.jsonl"
        general.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        self.train("forgets", {}, {}, data={"train": [SOURCE | {"path": str(self.rows)}], "general": [{"path": str(general), "format": "text"}]})
        measured = json.loads((self.folder / "forgets/evaluation.json").read_text())["forgetting"]
        load = lambda: AutoModelForCausalLM.from_pretrained(self.student, dtype=torch.float32).eval()
        base, tuned = load(), PeftModel.from_pretrained(load(), self.folder / "forgets/adapter").eval()
        tokenizer = Tokenizer.from_file(str(self.student / "tokenizer.json"))
        losses, divergence = torch.zeros(2), 0.0
        with torch.no_grad():
            for text in texts:
                ids = torch.tensor([tokenizer.encode(text).ids + [257]])
                p, q = (torch.log_softmax(model(ids).logits[0, :-1], -1) for model in (base, tuned))
                losses += torch.stack([-each.gather(1, ids[0, 1:, None]).sum() for each in (p, q)])
                divergence += (p.exp() * (p - q)).sum().item()
        count = measured["tokens"]
        self.assertEqual(count, sum(len(tokenizer.encode(text).ids) for text in texts))
        before, after = (losses / count).exp().tolist()
        self.assertAlmostEqual(measured["perplexity_before"] / before, 1, places=4)
        self.assertAlmostEqual(measured["perplexity_after"] / after, 1, places=4)
        self.assertAlmostEqual(measured["kl_from_base"] / (divergence / count), 1, places=4)
        self.assertGreater(abs(after / before - 1), 0.01, "nothing changed: this test shows little")

    def test_self_begins_at_zero(self):
        lines = self.train("self", {"teacher_share": 0.5}, {"model": "self"})
        self.assertLess(lines[0]["divergence"], 1e-6)
        self.assertGreater(lines[-1]["divergence"], 1e-3)

    def test_two_runs_have_the_same_bytes_and_a_resumed_one_too(self):
        for teacher in ({}, {"signal": "cached", "entries": "drawn", "count": 20}):
            with self.subTest(teacher):
                changes = {"run__checkpoint_every": 2, "run__seed": 5}
                if teacher:
                    self.run_recipe("teach", self.recipe("teach_same", {}, teacher, **changes))
                self.train("same", {}, teacher, **changes)
                self.train("again", {}, teacher, **changes)
                adapters = [(self.folder / name / "adapter/adapter_model.safetensors").read_bytes() for name in ("same", "again")]
                self.assertEqual(*adapters)
                shutil.rmtree(self.folder / "again/adapter")
                shutil.rmtree(self.folder / "again/checkpoints" / sorted(path.name for path in (self.folder / "again/checkpoints").iterdir() if path.is_dir())[-1])
                self.run_recipe("train", self.folder / "again.yaml", "--resume")
                self.assertEqual((self.folder / "again/adapter/adapter_model.safetensors").read_bytes(), adapters[0])

    def test_a_cache_teaches_what_the_teacher_would(self):
        online = self.train("online", {})
        top = {"signal": "cached", "entries": "top", "count": 599}
        self.run_recipe("teach", self.recipe("teach_top", {}, top))
        cached = self.train("cached_top", {}, top)
        for a, b in zip(online, cached, strict=True):
            self.assertLess(abs(a["divergence"] - b["divergence"]), 0.01 * a["divergence"])
        few = {"signal": "cached", "entries": "top", "count": 8}
        self.run_recipe("teach", self.recipe("teach_few", {}, few))
        self.assertLess(self.train("cached_few", {}, few)[0]["divergence"], online[0]["divergence"])   # a lower bound

    def test_a_killed_teach_run_goes_on(self):
        rows = write_rows(self.folder / "many.jsonl", 6000, seed=3)
        teacher = {"signal": "cached", "entries": "drawn", "count": 10}
        whole = self.recipe("teach_whole", {}, teacher, rows, run__cache=str(self.folder / "whole_cache"))
        self.run_recipe("teach", whole)
        killed = self.recipe("teach_killed", {}, teacher, rows, run__cache=str(self.folder / "killed_cache"))
        process = subprocess.Popen([graft_program.PROGRAM, "teach", str(killed), "--quiet"])
        deadline = time.monotonic() + 120
        parts = lambda: list((self.folder / "killed_cache").glob("teacher-*/part-*.h5"))
        while len(parts()) < 2 and process.poll() is None and time.monotonic() < deadline:   # with the second the first is listed
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.assertGreater(len(parts()), 1, "killed before anything was written")
        summary = json.loads(graft_program.run("teach", killed, "--json").stdout.strip().splitlines()[-1])
        self.assertLess(summary["new_rows"], summary["rows"], "all was computed again")
        losses = {}
        for name, cache in (("of_whole", "whole_cache"), ("of_killed", "killed_cache")):
            self.train(name, {}, teacher, rows=rows, run__cache=str(self.folder / cache), optimizer__batch_rows=64)
            losses[name] = [line["loss"] for line in self.lines(name)]
        self.assertEqual(losses["of_whole"], losses["of_killed"])
        again = json.loads(graft_program.run("teach", killed, "--json").stdout.strip().splitlines()[-1])
        self.assertEqual(again["new_rows"], 0)

    def test_a_full_disk_keeps_what_was_taught(self):
        rows = write_rows(self.folder / "for_full_disk.jsonl", 6000, seed=4)
        recipe = self.recipe("full_disk", {}, {"signal": "cached", "entries": "drawn", "count": 10}, rows, run__cache=str(self.folder / "full_cache"))
        process = subprocess.Popen([graft_program.PROGRAM, "teach", str(recipe)], stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while len(list((self.folder / "full_cache").glob("teacher-*/part-*.h5"))) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))   # no file may grow from here on
        _, messages = process.communicate()
        self.assertEqual(process.returncode, 3, messages)
        self.assertIn("error: [graft", messages)
        summary = json.loads(graft_program.run("teach", recipe, "--json").stdout.strip().splitlines()[-1])
        self.assertEqual(summary["rows"], 6000)
        self.assertLess(summary["new_rows"], 6000, "what was written before was lost")

    def test_what_cannot_be_learnt_from_is_refused(self):
        cached = {"signal": "cached", "entries": "drawn", "count": 30}
        nothing = str(self.folder / "empty_cache")
        self.refused("plan", self.recipe("no_store", {}, cached, run__cache=nothing), "REFUSED", "graft teach")
        self.refused("train", self.recipe("no_store", {}, cached, run__cache=nothing), "graft teach")
        self.run_recipe("teach", self.recipe("teach_one", {}, cached))
        other = make_tiny_chat_model(self.folder / "other", hidden_size=48, num_attention_heads=4)
        self.refused("plan", self.recipe("other", {}, cached | {"model": str(other)}), "REFUSED", "is of another", "teacher")
        more = write_rows(self.folder / "more.jsonl", ROWS + 3)
        self.refused("plan", self.recipe("more", {}, cached, more), "lacks", "graft teach")
        self.refused("plan", self.recipe("biased", {"divergence": "reverse_kl"}, cached), "forward_kl with teacher.entries drawn")
        self.refused("plan", self.recipe("no_teacher", {}, {"model": "none"}), "expected teacher.model with objective.kind distill")
        self.refused("plan", self.recipe("no_need", {"kind": "sft"}, {}), "expected teacher.model none with objective.kind sft")
        self.refused("plan", self.recipe("self_cached", {}, {"model": "self", "signal": "cached"}), "online with teacher.model self")
        self.refused("teach", self.recipe("online", {}, {}), "teacher.signal cached")
        foreign = make_tiny_chat_model(self.folder / "foreign")
        tokenizer = json.loads((foreign / "tokenizer.json").read_text())
        vocabulary = tokenizer["model"]["vocab"]
        first, second = list(vocabulary)[65:67]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
        (foreign / "tokenizer.json").write_text(json.dumps(tokenizer))
        self.refused("plan", self.recipe("foreign", {}, {"model": str(foreign)}), "expected a teacher with the student's tokens")
        self.refused("plan", self.recipe("unknown_licence", {}, {}, accept_licence=[]), "licence")

    def test_a_teacher_with_more_padding_is_the_same(self):
        padded = make_tiny_chat_model(self.folder / "padded", vocab_size=640, initializer_range=0.15)
        lines = self.train("padded_run", {}, {"model": str(padded)})
        self.assertGreater(lines[0]["divergence"], lines[-1]["divergence"])
        self.assertIn("640 tokens to the student's 600", self.run_recipe("plan", self.recipe("padded_plan", {}, {"model": str(padded)})))


if __name__ == "__main__":
    graft_program.main()
