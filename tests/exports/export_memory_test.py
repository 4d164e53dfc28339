#!/usr/bin/env python3
"""Exports of a sharded model of 4 GiB stay under twice its largest tensor and 512 MiB: they are written tensor by tensor.

  export_memory_test.py --graft PROGRAM [ExportMemory.FORM ...]

Measured: the peak of the process's own memory (RssAnon, looked at every 5 ms) and of everything resident (VmHWM), which has the pages of the mapped base besides.
Both with a LoRA adapter on all linear layers that is merged on the way, less the same command on a tiny model.
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import numpy
import safetensors.numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import graft_program
from large_checkpoint import llama, write_checkpoint

FORMS = ["safetensors", "gguf:F16", "gguf:Q8_0", "gguf:Q4_0", "gguf:Q4_K_M", "compressed-tensors:w4a16", "compressed-tensors:w8a8", "compressed-tensors:fp8",
         "compressed-tensors:fp8-block", "compressed-tensors:nvfp4", "compressed-tensors:mxfp4", "gptq", "awq", "nf4", "peft", "gguf-lora"]
LARGE, TINY = (2048, 42, 64000, 5632), (256, 2, 320, 256)    # hidden, layers, vocabulary, width
RANK = 8


def write_adapter(folder: pathlib.Path, tensors: dict) -> None:
    """A PEFT adapter on every linear layer of the blocks."""
    generator = numpy.random.default_rng(7)
    matrices = {}
    for name, shape in tensors.items():
        if name.endswith("_proj.weight"):
            stem = "base_model.model." + name.removesuffix(".weight")
            for letter, size in (("A", (RANK, shape[1])), ("B", (shape[0], RANK))):
                matrices[f"{stem}.lora_{letter}.weight"] = generator.standard_normal(size, dtype=numpy.float32) * 0.02
    folder.mkdir()
    safetensors.numpy.save_file(matrices, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 16, "bias": "none", "lora_dropout": 0.0,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}))


def status_bytes(process: int, field: str) -> int:
    try:
        for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    except (OSError, ProcessLookupError):
        pass
    return 0


class ExportMemory(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="graft-export-memory-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.bytes, cls.largest = {}, {}
        for name, sizes in (("large", LARGE), ("tiny", TINY)):
            settings, tensors = llama(*sizes)
            cls.bytes[name] = write_checkpoint(cls.folder / name, settings, tensors)
            cls.largest[name] = 2 * max(numpy.prod(shape) for shape in tensors.values())
            write_adapter(cls.folder / f"{name}-adapter", tensors)
        assert cls.bytes["large"] >= 4 << 30, cls.bytes
        assert len(list((cls.folder / "large").glob("*.safetensors"))) > 4

    def peaks(self, model: str, form: str) -> tuple[int, int]:
        """The largest RssAnon and VmHWM of the export."""
        out = self.folder / ("out.gguf" if form.startswith("gguf") else "out")
        command = [graft_program.PROGRAM, "export", self.folder / model, "--adapter", self.folder / f"{model}-adapter", "--to", form, "--out", out, "--quiet"]
        own = resident = 0
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=errors)
            while process.poll() is None:
                own = max(own, status_bytes(process.pid, "RssAnon:"))
                resident = max(resident, status_bytes(process.pid, "VmHWM:"))
                time.sleep(0.005)
            errors.seek(0)
            self.assertEqual(process.returncode, 0, errors.read()[-3000:])
        (shutil.rmtree if out.is_dir() else pathlib.Path.unlink)(out)
        return own, resident

    def check(self, form: str):
        start = time.monotonic()
        own, resident = self.peaks("large", form)
        own_of_tiny, resident_of_tiny = self.peaks("tiny", form)
        bound = 2 * self.largest["large"] + (512 << 20)
        print(f"{form}: own {(own - own_of_tiny) / 2**20:.0f} MiB, resident {(resident - resident_of_tiny) / 2**20:.0f} MiB above {own_of_tiny / 2**20:.0f} and "
              f"{resident_of_tiny / 2**20:.0f} of the program; bound {bound / 2**20:.0f}; {time.monotonic() - start:.0f} s", flush=True)
        self.assertLessEqual(own - own_of_tiny, bound)
        self.assertLessEqual(resident - resident_of_tiny, bound)


for each in FORMS:
    setattr(ExportMemory, "test_" + each.replace(":", "_").replace("-", "_"), lambda self, form=each: self.check(form))


if __name__ == "__main__":
    graft_program.main()
