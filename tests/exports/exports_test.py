#!/usr/bin/env python3
"""`graft export`: every form of tiny random bases, read by transformers, PEFT, gguf-py and llama.cpp.

  exports_test.py --graft PROGRAM [Llama|Qwen2|Qwen3|Refusals|RealModel...]
"""
import collections
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support"), str(HERE.parents[1] / "tools" / "engines")]
import graft_program
from tiny_bases import CASES, Base, gguf_name, logits_of, make_base, relative_l2

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize
from gguf_lora import write_gguf_lora
from llama_cpp import LlamaCpp
from peft import PeftModel
from reader import mean_kl
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(1)
SOURCE = pathlib.Path(os.environ.get("GRAFT_SOURCE_DIR", HERE.parents[1]))
REAL_MODEL = SOURCE / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
# Mean KL of what llama.cpp computes from what was trained (issue A). BF16 and Q8_0 round activations too.
KL_BOUNDS = {"F32": 1e-8, "F16": 1e-4, "BF16": 1e-2, "Q8_0": 1e-2}
# Form -> type of most tensors, general.file_type. Largest relative error of each type.
FORMS = {"Q4_0": ("Q4_0", 2), "Q5_0": ("Q5_0", 8), "Q5_1": ("Q5_1", 9), "Q2_K": ("Q2_K", 10), "Q3_K_S": ("Q3_K", 11), "Q3_K_M": ("Q3_K", 12), "Q3_K_L": ("Q3_K", 13),
         "Q4_K_S": ("Q4_K", 14), "Q5_K_S": ("Q5_K", 16), "Q5_K_M": ("Q5_K", 17), "Q6_K": ("Q6_K", 18), "IQ4_NL": ("IQ4_NL", 25), "IQ4_XS": ("IQ4_XS", 30), "MXFP4": ("MXFP4", 38)}
ERRORS = {"F32": 1e-6, "Q8_0": 0.01, "Q6_K": 0.03, "Q5_1": 0.06, "Q5_0": 0.06, "Q5_K": 0.06, "Q4_1": 0.12, "Q4_0": 0.12, "Q4_K": 0.12, "IQ4_NL": 0.12, "IQ4_XS": 0.12, "MXFP4": 0.16,
          "Q3_K": 0.22, "Q2_K": 0.42}
FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7, "Q4_1": 3, "Q4_K_M": 15}


def graft_export(model, form: str, out, *options, file_limit: int = 0) -> subprocess.CompletedProcess:
    def limit():  # stands in for a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    command = [graft_program.PROGRAM, "export", str(model), "--to", form, "--out", str(out), "--json", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, preexec_fn=limit if file_limit else None)


def exported(model, form: str, out, *options) -> dict:
    """The final JSON line of an export that must succeed."""
    done = graft_export(model, form, out, *options)
    if done.returncode != 0:
        raise AssertionError(f"graft export --to {form}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def gguf_tensors(path) -> dict:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(str(path)).tensors}


def metadata(path) -> dict:
    return {key: field.contents() for key, field in gguf.GGUFReader(str(path)).fields.items() if not key.startswith("GGUF.")}


def values(tensor) -> np.ndarray:
    """float32, shaped as in torch."""
    return dequantize(tensor.data, tensor.tensor_type).reshape([int(n) for n in reversed(tensor.shape)])


def for_each_base(check):
    def test(self):
        for base in self.bases:
            with self.subTest(base.case.name):
                check(self, base, self.folder / base.case.name)
    return test


class TinyBases(unittest.TestCase):
    family = ""

    @classmethod
    def setUpClass(cls):
        if not cls.family:
            raise unittest.SkipTest("one class per family")
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="graft_exports_"))
        cls.bases = [make_base(case, cls.folder / case.name) for case in CASES[cls.family]]

    @classmethod
    def tearDownClass(cls):
        if cls.family:
            shutil.rmtree(cls.folder)

    def llama_cpp_kl(self, base: Base, model, adapter=None, expected=None) -> float:
        engine = LlamaCpp(str(model), str(adapter) if adapter else None, threads=1, context=64, cache="F32")
        kl = mean_kl(base.logits if expected is None else expected, engine.logits(base.ids))
        engine.close()
        return kl

    @for_each_base
    def test_the_adapter_matters(self, base: Base, folder: pathlib.Path):
        self.assertGreater(mean_kl(base.logits, base.plain_logits), 0.1, "the tests below would pass without the adapter")

    @for_each_base
    def test_peft(self, base: Base, folder: pathlib.Path):
        out = folder / "peft_export"
        exported(base.path, "peft", out, "--adapter", base.adapter)
        ours, theirs = load_file(out / "adapter_model.safetensors"), load_file(base.adapter / "adapter_model.safetensors")
        self.assertEqual(ours.keys(), theirs.keys())
        for name, tensor in theirs.items():
            self.assertTrue(torch.equal(ours[name], tensor), name)
        config = json.loads((out / "adapter_config.json").read_text())
        self.assertEqual(config["base_model_name_or_path"], base.path.name)
        self.assertLess(len(config["target_modules"]), 8)
        adapted = PeftModel.from_pretrained(base.model, out).eval()
        self.assertLess(relative_l2(logits_of(adapted, base.ids), base.logits), 1e-5)
        base.model = adapted.unload()

    @for_each_base
    def test_safetensors(self, base: Base, folder: pathlib.Path):
        out = folder / "merged_f32"
        exported(base.path, "safetensors:F32", out, "--adapter", base.adapter)
        model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation="eager").eval()
        self.assertLess(relative_l2(logits_of(model, base.ids), base.logits), 1e-5)
        config = json.loads((out / "config.json").read_text())
        self.assertEqual((config["torch_dtype"], config["dtype"]), ("float32", "float32"))
        self.assertIn("rope_theta", config)
        self.assertIn("rope_parameters", config)
        out = folder / "merged_bf16"
        exported(base.path, "safetensors", out, "--adapter", base.adapter)
        weights = load_file(out / "model.safetensors")
        self.assertEqual(weights.keys(), base.merged.keys())
        for name, merged in base.merged.items():
            self.assertEqual(weights[name].dtype, torch.bfloat16)
            equal = (weights[name] == merged.bfloat16()).double().mean().item()
            self.assertGreater(equal, 0.999, f"{name}: bfloat16 is rounded once, to nearest even")
        model = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
        self.assertEqual(model.dtype, torch.bfloat16)

    @for_each_base
    def test_gguf_float(self, base: Base, folder: pathlib.Path):
        for form in ("F32", "F16", "BF16"):
            out = folder / f"{form}.gguf"
            result = exported(base.path, f"gguf:{form}", out, "--adapter", base.adapter)
            self.assertEqual(result["warning"], "")
            self.assertEqual(result["serve"], [f"llama-server -m {out} -c {min(2048, base.config['max_position_embeddings'])}"])
            tensors = gguf_tensors(out)
            names = {gguf_name(name) for name in base.merged}
            self.assertEqual(tensors.keys() - {"rope_freqs.weight"}, names)
            for name, merged in base.merged.items():
                tensor = tensors[gguf_name(name)]
                self.assertEqual(tensor.tensor_type.name, form if merged.dim() == 2 else "F32")
                tolerance = {"F32": 1e-6, "F16": 1e-3, "BF16": 4e-3}[form]
                self.assertLess(relative_l2(values(tensor), base.as_gguf(name, merged)), tolerance, name)
            self.assertLess(self.llama_cpp_kl(base, out), KL_BOUNDS[form], f"gguf:{form} in llama.cpp")

    @for_each_base
    def test_gguf_quantised(self, base: Base, folder: pathlib.Path):
        for form in ("Q8_0", "Q4_1", "Q4_K_M"):
            out = folder / f"{form}.gguf"
            result = exported(base.path, f"gguf:{form}", out, "--adapter", base.adapter)
            own_grid = base.is_gguf and "Q4_1" in base.case.types and form == "Q4_1"
            self.assertEqual("gguf:Q8_0" in result["warning"], own_grid, result["warning"])
            meta = metadata(out)
            self.assertEqual((meta["general.file_type"], meta["general.quantization_version"]), (FILE_TYPES[form], 2))
            tensors = gguf_tensors(out)
            adapted = {name for name in base.merged if not torch.equal(base.merged[name], base.plain[name])}
            for name, merged in base.merged.items():
                tensor, wanted = tensors[gguf_name(name)], base.as_gguf(name, merged)
                if merged.dim() == 1:
                    self.assertEqual(tensor.tensor_type.name, "F32")
                elif tensor.tensor_type.name in ("Q8_0", "Q4_1") and name not in adapted:
                    self.assertTrue(np.array_equal(tensor.data, quantize(wanted, tensor.tensor_type)), f"{name}: not gguf-py's bytes")
                error = {"F32": 1e-6, "Q8_0": 0.01, "Q6_K": 0.03, "Q4_1": 0.12, "Q4_K": 0.12}[tensor.tensor_type.name]
                self.assertLess(relative_l2(values(tensor), wanted), error, name)
            kinds = {tensor.tensor_type.name for tensor in tensors.values()}
            self.assertEqual(kinds, {"Q8_0": {"F32", "Q8_0"}, "Q4_1": {"F32", "Q4_1", "Q6_K"}, "Q4_K_M": {"F32", "Q4_K", "Q6_K"}}[form])
            kl = self.llama_cpp_kl(base, out)
            self.assertLess(kl, KL_BOUNDS.get(form, 1.0), f"gguf:{form} in llama.cpp")

    @for_each_base
    def test_gguf_lora(self, base: Base, folder: pathlib.Path):
        out, reference = folder / "lora.gguf", folder / "reference_lora.gguf"
        exported(base.path, "gguf-lora", out, "--adapter", base.adapter)
        write_gguf_lora(base.config, base.adapter, reference)
        ours, theirs = gguf_tensors(out), gguf_tensors(reference)
        self.assertEqual(ours.keys(), theirs.keys())
        for name, tensor in theirs.items():
            self.assertTrue(np.array_equal(ours[name].data, tensor.data), f"{name}: not the independent writer's bytes")
        self.assertAlmostEqual(metadata(out)["adapter.lora.alpha"], metadata(reference)["adapter.lora.alpha"], places=5)
        self.assertEqual({metadata(out)[key] for key in ("general.type", "adapter.type")}, {"adapter", "lora"})
        file, bound = base.path, 2e-2 if base.is_gguf and "Q4_1" in base.case.types else 1e-8
        if not base.is_gguf:   # the base alone as a GGUF file
            file = folder / "base.gguf"
            exported(base.path, "gguf:F32", file)
            self.assertLess(self.llama_cpp_kl(base, file, expected=base.plain_logits), 1e-8, "the base itself")
        self.assertLess(self.llama_cpp_kl(base, file, adapter=out), bound, "gguf-lora in llama.cpp")

    @for_each_base
    def test_nothing_tells_of_this_machine(self, base: Base, folder: pathlib.Path):
        exported(base.path, "peft", folder / "said_peft", "--adapter", base.adapter)
        exported(base.path, "safetensors", folder / "said_merged", "--adapter", base.adapter)
        exported(base.path, "gguf:Q8_0", folder / "said.gguf", "--adapter", base.adapter)
        files = [folder / "said.gguf", *(folder / "said_peft").iterdir(), *(folder / "said_merged").iterdir()]
        for file in files:
            content = file.read_bytes()
            host = os.uname().nodename
            for secret in [str(self.folder), str(pathlib.Path.home()) + "/", *([host] if len(host) > 4 else [])]:   # a short name occurs by chance
                self.assertNotIn(secret.encode(), content, file.name)
            self.assertEqual(file.stat().st_mode & 0o777, 0o600, file.name)


class Llama(TinyBases):
    family = "Llama"

    def test_every_gguf_form(self):
        base, folder = self.bases[0], self.folder / "forms"
        folder.mkdir()
        importance = self.importance(base, folder / "importance.gguf")
        for form, (main, file_type) in FORMS.items():
            for options in ([], ["--importance", folder / "importance.gguf"]):
                with self.subTest(form=form, options=options):
                    out = folder / "model.gguf"
                    exported(base.path, f"gguf:{form}", out, "--adapter", base.adapter, "--force", *options)
                    meta, tensors = metadata(out), gguf_tensors(out)
                    self.assertEqual(meta["general.file_type"], file_type)
                    self.assertEqual(meta.get("quantize.imatrix.entries_count"), len(importance) if options else None)
                    kinds = collections.Counter(tensor.tensor_type.name for tensor in tensors.values())
                    self.assertEqual(max(kinds.keys() - {"F32"}, key=kinds.get), main)
                    for name, merged in base.merged.items():
                        tensor = tensors[gguf_name(name)]
                        self.assertLess(relative_l2(values(tensor), base.as_gguf(name, merged)), ERRORS[tensor.tensor_type.name], name)
                    kl = self.llama_cpp_kl(base, out)
                    print(f"gguf:{form} {'with' if options else 'without'} importance: mean KL {kl:.1e} in llama.cpp", file=sys.stderr)
                    self.assertLess(kl, 0.15 if main in ("Q2_K", "Q3_K") else 0.03, f"gguf:{form} in llama.cpp")

    def importance(self, base: Base, path: pathlib.Path) -> dict[str, np.ndarray]:
        """A file as llama-imatrix writes it, with random numbers."""
        random = np.random.default_rng(2)
        matrix = {gguf_name(name): random.chisquare(2, merged.shape[1]).astype(np.float32) for name, merged in base.merged.items() if merged.dim() == 2 and "layers" in name}
        writer = gguf.GGUFWriter(str(path), "llama")
        writer.add_string("general.type", "imatrix")
        for name, sums in matrix.items():
            writer.add_tensor(f"{name}.in_sum2", sums)
            writer.add_tensor(f"{name}.counts", np.ones(1, dtype=np.float32))
        for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
            step()
        return matrix


class Qwen2(TinyBases):
    family = "Qwen2"


class Qwen3(TinyBases):
    family = "Qwen3"


class Refusals(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="graft_exports_"))
        cls.base = make_base(CASES["Llama"][3], cls.folder / "base")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def refused(self, form, out, *options, text="", code=2, model=None, **more):
        done = graft_export(model or self.base.path, form, out, *options, **more)
        self.assertEqual(done.returncode, code, done.stderr[-500:])
        self.assertIn(text, done.stderr)

    def test_unknown_form_lists_those_there_are(self):
        self.refused("gguf:Q3_K", self.folder / "x.gguf", text="gguf:Q4_K_M")
        self.assertFalse((self.folder / "x.gguf").exists())

    def test_existing_output(self):
        out = self.folder / "twice.gguf"
        exported(self.base.path, "gguf:Q8_0", out, "--adapter", self.base.adapter)
        first = out.read_bytes()
        self.refused("gguf:F16", out, "--adapter", self.base.adapter, text="--force")
        self.assertEqual(out.read_bytes(), first)
        exported(self.base.path, "gguf:Q8_0", out, "--adapter", self.base.adapter, "--force")
        self.assertEqual(out.read_bytes(), first, "the same export has the same bytes")
        folder = self.folder / "twice"
        exported(self.base.path, "peft", folder, "--adapter", self.base.adapter)
        self.refused("peft", folder, "--adapter", self.base.adapter, text="--force")
        exported(self.base.path, "safetensors", folder, "--adapter", self.base.adapter, "--force")
        self.assertFalse((folder / "adapter_config.json").exists())

    def test_force_deletes_no_folder_of_others(self):
        folder = self.folder / "mine"
        (folder / "photos").mkdir(parents=True)
        self.refused("peft", folder, "--adapter", self.base.adapter, "--force", text="holds other files")
        self.assertTrue((folder / "photos").exists())
        self.refused("gguf:F16", self.base.path, "--adapter", self.base.adapter, "--force", text="is the base")
        self.refused("peft", self.base.path.parent, "--adapter", self.base.adapter, "--force", text="holds the base")

    def test_adapter_forms_want_an_adapter(self):
        self.refused("peft", self.folder / "none", text="--adapter")
        self.refused("gguf-lora", self.folder / "none.gguf", text="--adapter")
        self.refused("gguf:F16", self.folder / "model", "--adapter", self.base.adapter, text="*.gguf")
        self.assertEqual([path.name for path in self.folder.iterdir() if path.name.startswith("none")], [])

    def test_adapters_that_are_not_plain_lora(self):
        for key, value in {"use_dora": True, "rank_pattern": {"q_proj": 2}, "bias": "all", "modules_to_save": ["lm_head"], "peft_type": "LOHA"}.items():
            adapter = self.folder / f"adapter_{key}"
            shutil.copytree(self.base.adapter, adapter)
            config = json.loads((adapter / "adapter_config.json").read_text()) | {key: value}
            (adapter / "adapter_config.json").write_text(json.dumps(config))
            self.refused("gguf:F16", self.folder / f"{key}.gguf", "--adapter", adapter, text=key)

    def test_full_disk_leaves_nothing(self):
        for form, name in (("gguf:F32", "full.gguf"), ("safetensors:F32", "full"), ("peft", "full"), ("gguf-lora", "full.gguf")):
            self.refused(form, self.folder / name, "--adapter", self.base.adapter, code=3, text="full", file_limit=20_000)
            self.assertEqual([path.name for path in self.folder.iterdir() if path.name.startswith("full")], [], form)


class RealModel(unittest.TestCase):
    """SmolLM2 as its GGUF file, through Hugging Face layout and back."""
    TEXT = "<|im_start|>user\nMein Konto ist gesperrt, 3 Abbuchungen!  Что делать? 🙂<|im_end|>\n"

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="graft_exports_"))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def ids_in_llama_cpp(self, path) -> list[int]:
        engine = LlamaCpp(str(path), threads=1, context=64)
        ids = engine.tokenize(self.TEXT)
        engine.close()
        return ids

    def same_tensors(self, path):
        ours, theirs = gguf_tensors(path), gguf_tensors(REAL_MODEL)
        self.assertEqual(ours.keys(), theirs.keys())
        for name, tensor in theirs.items():
            self.assertEqual(ours[name].tensor_type, tensor.tensor_type, name)
            self.assertTrue(np.array_equal(ours[name].data, tensor.data), name)

    def test_q4_1_is_the_file_itself(self):
        out = self.folder / "same.gguf"
        result = exported(REAL_MODEL, "gguf:Q4_1", out)
        self.same_tensors(out)
        ours, theirs = metadata(out), metadata(REAL_MODEL)
        self.assertEqual({key: value for key, value in ours.items() if not key.startswith("graft.")}, theirs)
        self.assertTrue(any("Q6_K wants columns in 256s" in note for note in result["notes"]), result["notes"])
        out.unlink()

    def test_through_hugging_face_layout_and_back(self):
        hub, back = self.folder / "hub", self.folder / "back.gguf"
        exported(REAL_MODEL, "safetensors:F32", hub)
        tokenizer = AutoTokenizer.from_pretrained(hub)
        expected = self.ids_in_llama_cpp(REAL_MODEL)
        self.assertEqual(tokenizer(self.TEXT, add_special_tokens=False)["input_ids"], expected)
        theirs = metadata(REAL_MODEL)
        self.assertEqual(tokenizer.chat_template, theirs["tokenizer.chat_template"])
        generation = json.loads((hub / "generation_config.json").read_text())
        self.assertIn(tokenizer.convert_tokens_to_ids("<|im_end|>"), generation["eos_token_id"])
        # Dequantised and quantised again by our codec: every byte comes back, and llama.cpp's tokenizer with it.
        exported(hub, "gguf:Q4_1", back)
        shutil.rmtree(hub)
        self.same_tensors(back)
        ours = metadata(back)
        for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.bos_token_id",
                    "tokenizer.ggml.eos_token_id", "tokenizer.chat_template", "general.architecture", "general.file_type", "llama.block_count",
                    "llama.attention.head_count_kv", "llama.rope.freq_base", "llama.rope.dimension_count", "llama.context_length"):
            self.assertEqual(ours[key], theirs[key], key)
        self.assertEqual(self.ids_in_llama_cpp(back), expected)
        back.unlink()


if __name__ == "__main__":
    graft_program.main()
