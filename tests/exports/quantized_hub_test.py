#!/usr/bin/env python3
"""Quantised exports in Hugging Face layout: the libraries of each form decode them to what graft computes with, and the model is still the one that was merged.

  quantized_hub_test.py --graft PROGRAM
"""
import json
import pathlib
import shutil
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
from hub_forms import decoded, quantised_modules   # first: golden.py hides bitsandbytes from PEFT
import graft_program
from exports_test import exported, graft_export
from tiny_bases import CASES, LLAMA, make_base, relative_l2
from case import Case

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, CompressedTensorsConfig
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(1)
# Form -> type of its blocks, largest relative error of a matrix, of transformers' own logits, which are of bfloat16 products (None: it reads none on a CPU).
FORMS = {"compressed-tensors:w4a16": ("I4_128", 0.12, 1e-2), "compressed-tensors:w4a16:g32": ("I4_32", 0.11, 1e-2), "compressed-tensors:w4a16-asym": ("I4_128_ZERO", 0.11, 1e-2),
         "compressed-tensors:w8a8": ("I8_SCALED", 0.01, 1e-2), "compressed-tensors:fp8": ("F8_E4M3_SCALED", 0.03, 1e-2), "compressed-tensors:fp8-block": ("F8_E4M3_SCALED", 0.03, 1e-2),
         "compressed-tensors:nvfp4": ("NVFP4", 0.1, 1e-2), "compressed-tensors:mxfp4": ("MXFP4", 0.13, 1e-2), "gptq": ("I4_128", 0.12, None), "awq:g64": ("I4_64_ZERO", 0.11, None),
         "nf4": ("NF4", 0.11, 3e-2)}


def logits_of_graft(model, ids, folder) -> torch.Tensor:
    (folder / "ids.json").write_text(json.dumps(ids))
    done = graft_program.run("logits", model, "--tokens", folder / "ids.json", "--out", folder / "logits.safetensors")
    assert done.returncode == 0, done.stderr
    return load_file(folder / "logits.safetensors")["logits"]


def logits_of_torch(model, ids) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float()


def dense_twin(folder) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """The model with every quantised matrix decoded by its own library, in float32."""
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    modules = quantised_modules(tensors)
    weights = {name: tensor.float() for name, tensor in tensors.items() if not any(name.startswith(module + ".") and name[len(module) + 1:] in parts for module, parts in modules.items())}
    for module, parts in modules.items():
        weights[module + ".weight"] = decoded(parts, config["quantization_config"])
    plain = AutoConfig.from_pretrained(folder)
    del plain.quantization_config
    plain.dtype = torch.float32
    model = AutoModelForCausalLM.from_config(plain, attn_implementation="eager").eval()
    missing, surplus = model.load_state_dict(weights, strict=False)
    assert not surplus and set(missing) <= {"lm_head.weight"}, (missing, surplus)
    model.tie_weights()
    return model, weights


class Dense(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="graft_quantized_hub_"))
        cls.base = make_base(CASES["Llama"][0], cls.folder / "base")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def test_every_form(self):
        for form, (blocks, bound, bound_in_transformers) in FORMS.items():
            with self.subTest(form):
                out = self.folder / "export"
                result = exported(self.base.path, form, out, "--adapter", self.base.adapter, "--force")
                self.assertIn(blocks, result["types"])
                twin, weights = dense_twin(out)
                matrices = [name for name in self.base.merged if "layers" in name and self.base.merged[name].dim() == 2]
                self.assertEqual(len(quantised_modules(load_file(out / "model.safetensors"))), len(matrices), "every linear of the layers and nothing else")
                for name in matrices:
                    self.assertLess(relative_l2(weights[name], self.base.merged[name]), bound, name)
                expected = logits_of_torch(twin, self.base.ids)
                self.assertLess(relative_l2(logits_of_graft(out, self.base.ids, self.folder), expected), 1e-5, "graft computes with what the library decodes")
                if bound_in_transformers is None:
                    continue
                more = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if form.startswith("compressed") else {}
                own = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation="eager", **more).eval()
                self.assertLess(relative_l2(logits_of_torch(own, self.base.ids), expected), bound_in_transformers, "transformers loads it as it is")

    def test_exports_of_quantised_bases(self):
        """A base in each form is trained and merged as it lies: back to plain weights nothing is lost."""
        for form in ("compressed-tensors:w4a16", "compressed-tensors:fp8-block", "awq:g64", "nf4"):
            with self.subTest(form):
                base, plain = self.folder / "quantised", self.folder / "plain"
                exported(self.base.path, form, base, "--force")
                exported(base, "safetensors:F32", plain, "--force")
                self.assertNotIn("quantization_config", json.loads((plain / "config.json").read_text()))
                _, weights = dense_twin(base)
                for name, tensor in load_file(plain / "model.safetensors").items():
                    self.assertTrue(torch.equal(tensor, weights[name]), name)

    def test_what_is_not_adapted_stays_as_it_was(self):
        """Codes and scales of a base in the same form, whatever its scales are: here those of blocks are powers of two, as DeepSeek V3.1 has them, which no rounding of the values would find."""
        base, adapter, again = self.folder / "kept", self.folder / "kept_adapter", self.folder / "kept_again"
        shutil.copytree(self.base.adapter, adapter)
        save_file({name: tensor for name, tensor in load_file(adapter / "adapter_model.safetensors").items() if ".q_proj." in name}, adapter / "adapter_model.safetensors")
        config = json.loads((adapter / "adapter_config.json").read_text()) | {"target_modules": ["q_proj"]}
        (adapter / "adapter_config.json").write_text(json.dumps(config))
        for form in ("compressed-tensors:w4a16", "compressed-tensors:w8a8", "compressed-tensors:fp8", "compressed-tensors:fp8-block", "compressed-tensors:mxfp4", "nf4"):
            with self.subTest(form):
                exported(self.base.path, form, base, "--force")
                tensors = load_file(base / "model.safetensors")
                if form.endswith("fp8-block"):
                    for module, parts in quantised_modules(tensors).items():
                        scale = parts["weight_scale"].float()
                        power = 2 ** torch.ceil(torch.log2(scale))
                        spread = (scale / power).repeat_interleave(128, 0).repeat_interleave(128, 1)[:parts["weight"].shape[0], :parts["weight"].shape[1]]
                        tensors[module + ".weight"] = (parts["weight"].float() * spread).to(torch.float8_e4m3fn)
                        tensors[module + ".weight_scale"] = power.bfloat16()
                    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
                exported(base, form, again, "--adapter", adapter, "--force")
                result = load_file(again / "model.safetensors")
                self.assertEqual(result.keys(), tensors.keys())
                changed = {name for name, tensor in tensors.items() if not torch.equal(tensor.view(torch.uint8), result[name].view(torch.uint8))}
                self.assertTrue(changed)
                self.assertEqual({name for name in changed if ".q_proj." not in name}, set())

    def test_what_a_form_cannot_hold_is_refused(self):
        out = self.folder / "refused"
        narrow = make_base(Case("narrow", LLAMA | {"hidden_size": 96, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24}), self.folder / "narrow")
        for form, text in {"awq:g128": "a smaller group", "compressed-tensors:fp8": "no multiple of 64", "gptq:g48": "expected one of the forms"}.items():
            done = graft_export(narrow.path, form, out)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(text, done.stderr)
            self.assertFalse(out.exists())
        done = graft_export(self.base.path, "awq", out, file_limit=20_000)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertEqual([path.name for path in self.folder.iterdir() if path.name.startswith("refused")], [])


if __name__ == "__main__":
    graft_program.main()
