#!/usr/bin/env python3
"""The TEMPLATE of exported Modelfiles writes what the chat templates write: Go's own text/template against graft's interpreter, over all real chat templates.

  go_template_test.py --graft PROGRAM     needs Go (Debian: golang-go) and $GRAFT_SHARED/data/chat_templates
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import graft_program
from tiny_chat_model import make_tiny_chat_model

HERE = pathlib.Path(__file__).resolve().parent
TEMPLATES = pathlib.Path(os.environ.get("GRAFT_SHARED", graft_program.ROOT.parent / "shared")) / "data/chat_templates"
SYSTEM, USER, ASSISTANT = "Name the queue.", "Where is my parcel \"7\"?\n\nIt is {{ late }} — спасибо!", "shipping"
CONVERSATIONS = [[("user", USER)], [("system", SYSTEM), ("user", USER)], [("user", USER), ("assistant", ASSISTANT), ("user", "And now?")],
                 [("system", SYSTEM), ("user", USER), ("assistant", ASSISTANT), ("user", "And now?"), ("assistant", "still"), ("user", "Why?")]]


def messages_of(conversation: list) -> list:
    return [{"role": role, "content": content} for role, content in conversation]


class GoTemplates(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="graft-go-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        if not shutil.which("go"):
            print("Go is not installed (Debian: golang-go)")
            sys.exit(77)
        subprocess.run(["go", "build", "-o", cls.folder / "render", HERE / "render_modelfile.go"], check=True, env=os.environ | {"HOME": str(cls.folder), "GO111MODULE": "off"})
        cls.model = make_tiny_chat_model(cls.folder / "model", num_hidden_layers=1)
        settings = json.loads((cls.model / "tokenizer_config.json").read_text())
        del settings["chat_template"]
        (cls.model / "tokenizer_config.json").write_text(json.dumps(settings | {"bos_token": "<|im_start|>"}))

    def by_graft(self, conversations: list) -> list:
        lines = self.folder / "conversations.jsonl"
        lines.write_text("".join(json.dumps({"messages": messages_of(each), "add_generation_prompt": True}) + "\n" for each in conversations))
        return [json.loads(line).get("text") for line in graft_program.run("render", self.model, "--file", lines).stdout.splitlines()]

    def by_go(self, template: str, conversations: list) -> list:
        (self.folder / "template").write_text(template)
        given = "".join(json.dumps(messages_of(each)) + "\n" for each in conversations)
        done = subprocess.run([self.folder / "render", self.folder / "template"], input=given, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def test_all_real_templates(self):
        converted, refused = [], {}
        for path in sorted(TEMPLATES.glob("*.jinja")):
            with self.subTest(path.stem):
                (self.model / "chat_template.jinja").write_text(path.read_text())
                done = graft_program.run("export", self.model, "--to", "gguf:F32", "--out", self.folder / "out.gguf", "--force")
                self.assertEqual(done.returncode, 0, done.stderr)
                modelfile = self.folder / "out.Modelfile"
                if not modelfile.exists():
                    refused[path.stem] = re.search(r"no Modelfile for Ollama.*?: (.*)", done.stderr).group(1)
                    continue
                text = modelfile.read_text()
                template = re.search(r'TEMPLATE """(.*?)"""\n', text, re.S).group(1)
                self.assertIn('PARAMETER stop "<|im_end|>"', text)
                for conversation, graft, go in zip(CONVERSATIONS, self.by_graft(CONVERSATIONS), self.by_go(template, CONVERSATIONS)):
                    if graft is None:     # a system message that the template refuses
                        self.assertIn("system messages", text)
                        self.assertEqual(conversation[0][0], "system")
                        continue
                    self.assertEqual(go, graft)
                converted.append(path.stem)
        print(f"{len(converted)} of {len(converted) + len(refused)} chat templates as Go templates: the same text")
        for name, reason in refused.items():
            print(f"  not {name}: {reason[:150]}")
        self.assertGreater(len(converted), 30)


if __name__ == "__main__":
    graft_program.main()
