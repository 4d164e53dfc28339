#!/usr/bin/env python3
"""What leaves a run: no socket is opened by any command, and nothing that is kept or shown holds a row's text, a name or a path of this machine.

  privacy_test.py --graft PROGRAM
A training row with a random canary goes through the quickstart's recipe (three steps, few rows, all its exports) under another host and
user name; every file of the run is searched, and every line printed. strace sees plan, train, verify, eval and chat.
"""
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import graft_program
from graft_program import ROOT, TICKETS, ticket_source, with_settings


class Privacy(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="graft-privacy-"))
        cls.canary, cls.host, cls.user = (f"{name}{secrets.token_hex(8)}" for name in ("canary", "host", "user"))
        cls.home = cls.folder / f"home{secrets.token_hex(4)}"
        cls.home.mkdir()
        train, test = ((TICKETS / f"{part}.jsonl").read_text().splitlines(True) for part in ("train", "test"))
        canary_row = json.dumps({"text": f"My order {cls.canary} has not come.", "queue": "shipping"}) + "\n"
        (cls.folder / "train.jsonl").write_text(canary_row + "".join(train[:23]))
        (cls.folder / "test.jsonl").write_text("".join(test[:6]))
        cls.run_folder = cls.folder / "run"
        cls.shown = ""
        settings = [*(f"data.{part}=[{ticket_source(cls.folder / f'{part}.jsonl')}]" for part in ("train", "test")),
                    "schedule.steps=3", "run.threads=1", "run.checkpoint_every=2"]
        recipe = [ROOT / "recipes/support_routing.yaml", *with_settings(settings)]
        cls.graft("plan", *recipe, "--out", cls.run_folder)
        cls.graft("train", *recipe, "--out", cls.run_folder)
        cls.exports = sorted(path for path in (cls.run_folder / "exports").iterdir() if path.suffix != ".Modelfile")
        cls.graft("verify", cls.run_folder, next(path for path in cls.exports if "Q8_0" in path.name), "--max-mean-kl", "1")
        cls.graft("eval", cls.run_folder, "--limit", "2", "--out", cls.run_folder / "eval.json")
        cls.graft("chat", cls.run_folder, "--prompt", "Where is it?", "--max-tokens", "2")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @classmethod
    def graft(cls, *arguments):
        """Runs graft with the other names, under strace; the trace of every command is kept."""
        name = str(arguments[0])
        command = ["strace", "--seccomp-bpf", "-f", "-qq", "-e", "trace=%network", "-e", "signal=none", "-o", cls.folder / f"{name}.trace", graft_program.PROGRAM, *arguments]
        environment = {**os.environ, "USER": cls.user, "LOGNAME": cls.user, "HOSTNAME": cls.host, "HOME": str(cls.home)}
        if subprocess.run(["unshare", "--uts", "true"], capture_output=True).returncode == 0:
            command = ["unshare", "--uts", "sh", "-c", 'hostname "$0" 2>/dev/null; exec "$@"', cls.host, *command]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, f"{name}: exit {done.returncode}\n{done.stderr}"
        cls.shown += done.stdout + done.stderr

    def secrets_in(self, content: bytes) -> list[str]:
        secrets_of_machine = {"the canary": self.canary, "the host name": self.host, "the user name": self.user, "the home folder": str(self.home),
                              "the project's path": str(ROOT), "the data's path": str(self.folder)}
        return [what for what, secret in secrets_of_machine.items() if secret.encode() in content]

    def test_no_socket(self):
        for command in ("plan", "train", "verify", "eval", "chat"):
            self.assertEqual((self.folder / f"{command}.trace").read_text(), "", f"graft {command} used the network")

    def test_strace_would_see_a_socket(self):
        trace = self.folder / "socket.trace"
        subprocess.run(["strace", "--seccomp-bpf", "-f", "-qq", "-e", "trace=%network", "-o", trace, "python3", "-c", "import socket; socket.socket()"], check=True)
        self.assertIn("socket(", trace.read_text())

    def test_no_file_tells(self):
        searched = 0
        for path in self.run_folder.rglob("*"):
            # The rows' tokens are kept in the store, by design; the recipe and plan are the user's own words.
            if not path.is_file() or path.suffix == ".h5" or path.name in ("recipe.yaml", "plan.json"):
                continue
            searched += 1
            with self.subTest(str(path.relative_to(self.run_folder))):
                self.assertEqual(self.secrets_in(path.read_bytes()), [])
        self.assertGreater(searched, 15)
        self.assertEqual(len(self.exports), 4)

    def test_no_file_is_for_others(self):
        for path in self.run_folder.rglob("*"):
            self.assertEqual(path.stat().st_mode & 0o077, 0, f"{path} is open to others")

    def test_what_is_printed_holds_no_row(self):
        self.assertNotIn(self.canary, self.shown)


if __name__ == "__main__":
    graft_program.main()
