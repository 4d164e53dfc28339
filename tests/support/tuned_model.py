"""A short real fine-tune that certificates are tried on: SmolLM2 on shipped tickets, far enough from its base that a lost adapter shows."""
import json
import pathlib
import shutil
import tempfile
import unittest

import graft_program
from graft_program import ROOT, TICKETS, ticket_source, with_settings

BASE = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
ROWS = 8      # held out


class TunedModel(unittest.TestCase):
    """One run for all tests of a class; exports are its `exports`."""
    exports: list[str] = []

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="graft-tuned-"))
        test = cls.folder / "test.jsonl"
        test.write_text("".join((TICKETS / "test.jsonl").read_text().splitlines(True)[:ROWS]))
        forms = ", ".join(f"{{format: '{form}', verify: none}}" for form in cls.exports)
        settings = ["run.threads=1", "schedule.steps=6", "optimizer.learning_rate=3e-3", "schedule.warmup=0", "data.validation_fraction=0",
                    f"data.test=[{ticket_source(test)}]", f"export=[{forms}]"]
        cls.run_folder = cls.folder / "run"
        done = graft_program.run("train", ROOT / "recipes/support_routing.yaml", "--out", cls.run_folder, "--quiet", *with_settings(settings))
        assert done.returncode == 0, done.stderr

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def exported(self, name: str) -> pathlib.Path:
        """The export whose file or folder name contains `name`."""
        found = [path for path in (self.run_folder / "exports").iterdir() if name in path.name and path.suffix != ".Modelfile"]
        self.assertEqual(len(found), 1, f"{name}: {found}")
        return found[0]

    def certificate(self, artefact, status: int, *options) -> dict:
        """graft verify, which must exit with `status`."""
        done = graft_program.run("verify", self.run_folder, artefact, "--json", *options)
        self.assertEqual(done.returncode, status, done.stderr + done.stdout[-3000:])
        certificate = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(certificate["passed"], status == 0)
        return certificate
