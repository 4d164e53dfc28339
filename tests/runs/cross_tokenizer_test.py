#!/usr/bin/env python3
"""A teacher with another tokenizer, template and end token: the losses of whole runs are those of a PyTorch loop that aligns the answers' texts by itself."""
import json
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import graft_program
from tiny_chat_model import make_tiny_chat_model

STEPS = 6
TEMPLATE = ("{% for message in messages %}[{{ message['role'] }}]\n{{ message['content'] }}<|end|>\n{% endfor %}{% if add_generation_prompt %}[assistant]\n{% endif %}")
ANSWERS = ["a red rose", "blue sea, blue sky", "green grün 草", "red", "the colour is blue", "nothing of the kind"]


def retokenized(folder: pathlib.Path) -> pathlib.Path:
    """Merges in place of single bytes, other special tokens, another template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(ANSWERS * 3, trainers.BpeTrainer(vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "model_max_length": 512, "chat_template": TEMPLATE}))
    return folder


class CrossTokenizer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory(prefix="graft-cross-")
        cls.folder = pathlib.Path(cls.scratch.name)
        cls.student = make_tiny_chat_model(cls.folder / "student", initializer_range=0.2)
        cls.teacher = retokenized(make_tiny_chat_model(cls.folder / "teacher", initializer_range=0.15, hidden_size=96))
        cls.rows = cls.folder / "rows.jsonl"
        cls.rows.write_text("".join(json.dumps({"messages": [{"role": "user", "content": f"row {i}"}, {"role": "assistant", "content": answer}]}) + "\n" for i, answer in enumerate(ANSWERS)))

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def recipe(self, name: str, objective: dict, teacher: dict | None = None, rows: pathlib.Path | None = None, steps: int = STEPS, rate: float = 1e-2) -> pathlib.Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps({
            "accept_licence": "unknown", "model": {"base": str(self.student), "compute": "float32"}, "adapter": {"rank": 4, "alpha": 8},
            "data": {"train": [{"path": str(rows or self.rows), "format": "messages"}]}, "objective": {"kind": "distill"} | objective,
            "teacher": {"model": str(self.teacher), "compute": "float32"} | (teacher or {}), "optimizer": {"learning_rate": rate, "batch_rows": len(ANSWERS)},
            "schedule": {"steps": steps, "shape": "constant", "warmup": 0},
            "run": {"out": str(self.folder / name), "cache": str(self.folder / "cache"), "threads": 2, "device": "cpu"}, "export": []}))
        return path

    def train(self, *arguments, **options) -> list[dict]:
        recipe = self.recipe(*arguments, **options)
        done = graft_program.run("train", recipe)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in (self.folder / recipe.stem / "metrics.jsonl").read_text().splitlines()]

    def encoded(self, model: pathlib.Path, pieces: list[str]):
        """Ids of a model's own rendering, the places of the answer's tokens with the byte at which each ends, and the place of the end token."""
        from tokenizers import Tokenizer
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        ids, places, end = [], [], 0
        for index, piece in enumerate(pieces):
            new = tokenizer.encode(piece).ids
            if index == 1:
                unicode_of = tokenizer.id_to_token
                for token in new:
                    end += len(unicode_of(token))   # byte-level: one letter a byte
                    places.append((len(ids), end))
                    ids.append(token)
            else:
                ids += new
        return ids, places

    def test_losses_are_those_of_spans_aligned_by_text(self):
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
        share = 0.7
        self.train("first", {"divergence": "spans"}, steps=1, rate=1e-30)
        load = lambda path: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        student, teacher = PeftModel.from_pretrained(load(self.student), self.folder / "first/adapter", is_trainable=True), load(self.teacher).eval()
        optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=1e-2, weight_decay=0)
        losses, several = [], 0
        for _ in range(STEPS):
            entropy, divergence, supervised = 0, 0, 0
            for row, answer in enumerate(ANSWERS):
                ours, our_places = self.encoded(self.student, [f"<|im_start|>user\nrow {row}<|im_end|>\n<|im_start|>assistant\n", answer, "<|im_end|>", "\n"])
                theirs, their_places = self.encoded(self.teacher, [f"[user]\nrow {row}<|end|>\n[assistant]\n", answer, "<|end|>", "\n"])
                log_probabilities = lambda model, ids: torch.log_softmax(model(torch.tensor([ids])).logits[0, :-1], -1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
                q = log_probabilities(student, ours)
                with torch.no_grad():
                    p = log_probabilities(teacher, theirs)
                our_end, their_end = our_places[-1][0] + 1, their_places[-1][0] + 1
                common = sorted({end for _, end in our_places} & {end for _, end in their_places})
                begin = 0
                spans = []
                for end in common:
                    inside = lambda places: [place for place, at in places if begin < at <= end]
                    spans.append((inside(our_places), inside(their_places)))
                    begin = end
                spans.append(([our_end], [their_end]))
                several += any(len(a) > 1 for a, _ in spans)
                for mine, others in spans:
                    log_q = sum(q[place - 1] for place in mine)
                    log_p = sum(p[place - 1] for place in others)
                    divergence = divergence + log_p.exp() * (log_p - log_q) + (1 - log_p.exp()) * (torch.log1p(-log_p.exp()) - torch.log1p(-log_q.exp()))
                places = [place for place, _ in our_places] + [our_end]
                entropy = entropy - sum(q[place - 1] for place in places)
                supervised += len(places)
            loss = ((1 - share) * entropy + share * divergence) / supervised
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for p in student.parameters() if p.requires_grad], 1.0)
            optimizer.step()
            losses.append(loss.item())
        self.assertGreater(several, STEPS, "every token ends where one of the other side does: this test shows little")
        ours = self.train("spans", {"divergence": "spans", "teacher_share": share})
        for step, (a, b) in enumerate(zip([line["loss"] for line in ours], losses, strict=True), 1):
            self.assertLess(abs(a - b), 1e-5 * max(1, abs(b)), f"step {step}: graft {a}, PyTorch {b}")
        self.assertLess(losses[-1], 0.9 * losses[0], "nothing was learnt: these losses compare too little")

    def test_the_plan_says_what_is_compared(self):
        done = graft_program.run("plan", self.recipe("planned", {"divergence": "spans"}))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("spans that end with a token on both sides", done.stdout)
        self.assertIn("p log(p / q)", done.stdout)

    def test_what_cannot_be_aligned_is_refused(self):
        def refused(recipe, *parts):
            done = graft_program.run("plan", recipe)
            self.assertIn(done.returncode, (1, 2), done.stdout + done.stderr)
            for part in parts:
                self.assertIn(part, done.stdout + done.stderr)
        refused(self.recipe("ids", {}), "expected a teacher with the student's tokens", "objective.divergence: spans")
        refused(self.recipe("cached", {"divergence": "spans"}, {"signal": "cached", "entries": "top"}), "online, of a teacher of its own")
        louder = retokenized(make_tiny_chat_model(self.folder / "louder"))   # its template writes more than the answer
        config = json.loads((louder / "tokenizer_config.json").read_text())
        config["chat_template"] = TEMPLATE.replace("{{ message['content'] }}", "{{ message['content'] ~ '!' }}")
        (louder / "tokenizer_config.json").write_text(json.dumps(config))
        refused(self.recipe("louder_run", {"divergence": "spans"}, {"model": str(louder)}), "expected student and teacher to read the same answer", "rows.jsonl:")


if __name__ == "__main__":
    graft_program.main()
