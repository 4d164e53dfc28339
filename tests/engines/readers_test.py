#!/usr/bin/env python3
"""llama.cpp reads the tiny GGUFs of tests/conformance, with a GGUF LoRA, as transformers + PEFT reads their weights.

  readers_test.py --goldens DIR      folders made by tests/conformance/make_goldens.py
So the goldens, graft's reference, mean to llama.cpp what they mean to graft; and the reader itself is right.
"""
import argparse
import importlib
import pathlib
import sys
import unittest

import numpy as np
from safetensors.numpy import load_file

from gguf_lora import write_gguf_lora     # also puts tests/conformance on the path
from reader import Reader, mean_kl

GOLDENS = pathlib.Path(".")
MODEL = pathlib.Path(__file__).resolve().parents[2] / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
# llama.cpp multiplies quantised rows with activations rounded to 8 bits; these tiny random models amplify that.
QUANTISED_KL, FLOAT_KL = 3e-2, 1e-8


class TinyModels(unittest.TestCase):
    def check(self, family: str) -> None:
        for case in importlib.import_module(f"families.{family}").GGUF_CASES:
            with self.subTest(case.name):
                folder = GOLDENS / case.name
                lora = folder / "adapter.gguf"
                write_gguf_lora(case.config, folder / "adapter", lora)
                golden = load_file(folder / "golden.safetensors")
                bound = FLOAT_KL if case.types == ("F32",) else QUANTISED_KL
                with Reader("llama_cpp", model=folder / "model.gguf", adapter=lora, cache="F32", threads=1, context=64) as reader:
                    for ids, expected in zip(golden["input_ids"], golden["logits"]):
                        kl = mean_kl(expected, reader.logits(ids.tolist()))
                        self.assertLess(kl, bound)
                with Reader("llama_cpp", model=folder / "model.gguf", cache="F32", threads=1, context=64) as reader:
                    without = mean_kl(golden["logits"][0], reader.logits(golden["input_ids"][0].tolist()))
                    self.assertGreater(without, 2 * bound, "the adapter changes nothing: this test would pass without it")

    def test_llama(self):
        self.check("llama")

    def test_qwen2(self):
        self.check("qwen2")

    def test_qwen3(self):
        self.check("qwen3")


class RealModel(unittest.TestCase):
    TEXT = ("<|im_start|>user\nI was charged twice for the same order, and nobody answers the phone. What now?<|im_end|>\n"
            "<|im_start|>assistant\nI am sorry to hear that. Please send us both receipts, and we will refund the second one.<|im_end|>\n")

    def test_llama_cpp_agrees_with_transformers(self):
        with Reader("llama_cpp", model=MODEL, cache="F32") as reader:
            ids = reader.ask("tokenize", text=self.TEXT)["ids"]
            ours = reader.logits(ids)
            prompt = ids[:24]
            first = reader.ask("generate", ids=prompt, max_tokens=6, stop=[])
            self.assertEqual(first["stopped"], False)
            stop = reader.ask("generate", ids=prompt, max_tokens=6, stop=[first["ids"][2]])
            self.assertEqual((stop["ids"], stop["stopped"]), (first["ids"][:first["ids"].index(first["ids"][2])], True))
            self.assertEqual(first["ids"][0], int(np.argmax(ours[23])))
            with self.assertRaisesRegex(RuntimeError, "outside the vocabulary"):
                reader.logits([49152])
        with Reader("transformers", model=MODEL) as reader:
            self.assertEqual(reader.ask("tokenize", text=self.TEXT)["ids"], ids)
            theirs = reader.logits(ids)
            self.assertEqual(reader.ask("generate", ids=prompt, max_tokens=1, stop=[])["ids"][0], int(np.argmax(theirs[23])))
        self.assertLess(mean_kl(theirs, ours), 1e-2)      # 8-bit activations cost 2.5e-3 to 4e-3
        self.assertGreater(mean_kl(theirs, ours), 1e-4)   # and would be missed if both read the same thing

    def test_errors_are_answers(self):
        with self.assertRaisesRegex(RuntimeError, "cannot load"):
            Reader("llama_cpp", model="absent.gguf")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--goldens", type=pathlib.Path, required=True)
    arguments, rest = parser.parse_known_args()
    GOLDENS = arguments.goldens
    unittest.main(argv=[sys.argv[0]] + rest)
