#!/usr/bin/env python3
"""A certificate by llama.cpp passes for what was trained, and fails for four faults that a reader of our own would not see.

  planted_faults_test.py --graft PROGRAM
The faults are planted in the exported file: rows of q and k in the hub's order (as if writer and reader of graft had both forgotten to
move them), another end token, a template without the newline before the answer, and an adapter of half its scale.
"""
import pathlib
import shutil
import sys

import gguf
import numpy as np
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import graft_program
from tuned_model import BASE, ROWS, TunedModel

HEADS, KV_HEADS = 9, 3      # of SmolLM2-135M


class PlantedFaults(TunedModel):
    exports = ["peft", "gguf:F16"]

    def planted(self) -> pathlib.Path:
        return pathlib.Path(shutil.copy(self.exported("F16"), self.folder / "planted.gguf"))

    def in_llama_cpp(self, artefact, status: int) -> dict:
        return self.certificate(artefact, status, "--engine", "llama.cpp")

    def test_what_was_trained_passes(self):
        certificate = self.in_llama_cpp(self.exported("F16"), 0)
        self.assertLess(certificate["mean_kl"], 1e-4)
        self.assertEqual(certificate["problems"], [])
        self.assertEqual(certificate["task"]["trained"], certificate["task"]["exported"])

    def test_rows_of_q_and_k_in_the_wrong_order(self):
        file = self.planted()
        for tensor in gguf.GGUFReader(file, "r+").tensors:
            heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(tensor.name.split(".")[-2])
            if heads:
                rows = np.array(tensor.data)
                tensor.data[:] = rows.reshape(heads, rows.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)
        self.assertGreater(self.in_llama_cpp(file, 1)["mean_kl"], 0.1)

    def test_another_end_token(self):
        file = self.planted()
        field = gguf.GGUFReader(file, "r+").fields["tokenizer.ggml.eos_token_id"]
        self.assertNotEqual(int(field.parts[-1][0]), 0)
        field.parts[-1][0] = 0
        certificate = self.in_llama_cpp(file, 1)
        self.assertLess(certificate["mean_kl"], 1e-4)
        self.assertIn("the served end token is <|endoftext|> (0), the base's is <|im_end|> (2)", certificate["problems"])

    def test_a_newline_is_missing_in_the_template(self):
        file = self.planted()
        field = gguf.GGUFReader(file, "r+").fields["tokenizer.chat_template"]
        text = bytes(field.parts[-1])
        planted = text.replace(b"assistant\n'", b"assistant' ")      # of the same length: the file stays as it is
        self.assertNotEqual(text, planted)
        self.assertEqual(len(text), len(planted))
        field.parts[-1][:] = np.frombuffer(planted, np.uint8)
        certificate = self.in_llama_cpp(file, 1)
        self.assertLess(certificate["mean_kl"], 1e-4)
        self.assertRegex(" ".join(certificate["problems"]), f"the served template renders {ROWS} of {ROWS} prompts otherwise than trained, first at byte [0-9]+")

    def test_an_adapter_of_half_its_scale(self):
        half = self.folder / "half"
        shutil.copytree(self.exported("peft"), half)
        weights = load_file(half / "adapter_model.safetensors")
        save_file({name: weight * (0.5 if ".lora_B." in name else 1) for name, weight in weights.items()}, half / "adapter_model.safetensors",
                  metadata={"format": "pt"})
        file = self.folder / "half.gguf"
        done = graft_program.run("export", BASE, "--adapter", half, "--to", "gguf:F16", "--out", file)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertGreater(self.in_llama_cpp(file, 1)["mean_kl"], 0.02)


if __name__ == "__main__":
    graft_program.main()
