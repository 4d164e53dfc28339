#!/usr/bin/env python3
"""Mixtures of experts as engines read them: adapters with a module for each expert, and quantised directories with a matrix for each.

  experts_test.py --graft PROGRAM [Adapters|Quantised...]
transformers 5 holds experts stacked and its files do not; vLLM and llm-compressor have them apart (`...experts.3.gate_proj.weight_packed`). What an adapter of every family
comes to in transformers: tests/conformance/exported_test.py.
"""
import json
import pathlib
import re
import shutil
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
from hub_forms import decoded, quantised_modules   # first: golden.py hides bitsandbytes from PEFT
import graft_program
from exports_test import exported, graft_export
from quantized_hub_test import FORMS, logits_of_graft, logits_of_torch
from tiny_bases import relative_l2
from case import Case
from expert_cases import LATENT, lora
from families import deepseek_v3, gpt_oss, mixtral, qwen3_5_moe_text, qwen3_moe
from golden import attach_adapter, load_model, write_model

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig, Mxfp4Config
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(1)
# Columns in whole blocks of every form.
WIDE = {"hidden_size": 256, "moe_intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}
EXPERT = re.compile(r"(.*\.layers\.\d+)\..*\.experts\.(\d+)\.(gate_proj|up_proj|down_proj|w1|w2|w3)$")
PARTS = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
ROUTERS = ("mlp.gate.weight", "block_sparse_moe.gate.weight", "shared_expert_gate.weight")
# Bits of a weight in its tensors: codes, scales and zero points, and what a tiny matrix has beside them (weight_shape, g_idx, quant_state).
BITS = {"compressed-tensors:w4a16": 4.13, "compressed-tensors:w4a16:g32": 4.51, "compressed-tensors:w4a16-asym": 4.17, "compressed-tensors:w8a8": 8.13, "compressed-tensors:fp8": 8.13,
        "compressed-tensors:fp8-block": 8.01, "compressed-tensors:nvfp4": 4.51, "compressed-tensors:mxfp4": 4.26, "gptq": 4.42, "awq:g64": 4.32}
IN_TRANSFORMERS = ("compressed-tensors:w4a16", "compressed-tensors:w4a16:g32", "compressed-tensors:fp8")     # its loader has no other form of experts


class Mixture:
    def __init__(self, name: str, config: dict, options: dict, folder: pathlib.Path):
        self.path, self.adapter = folder / name, folder / f"{name}_adapter"
        case = Case(f"experts_{name}", config, lora=options)
        self.model = write_model(case, self.path)
        attach_adapter(self.model, case, self.adapter).unload()
        values = load_file(self.adapter / "adapter_model.safetensors")
        save_file({name: value * (2 if ".lora_A." in name else 1) for name, value in values.items()}, self.adapter / "adapter_model.safetensors", metadata={"format": "pt"})
        self.ids = torch.randint(0, config["vocab_size"], (29,), generator=torch.Generator().manual_seed(3)).tolist()
        self.plain_logits = logits_of_torch(self.model, self.ids)
        adapted = PeftModel.from_pretrained(self.model, self.adapter).eval()
        self.logits = logits_of_torch(adapted, self.ids)
        assert relative_l2(self.plain_logits, self.logits) > 0.05, "the tests below would pass without the adapter"
        merged = folder / f"{name}_merged"
        adapted.merge_and_unload().save_pretrained(merged)
        self.merged = load_file(merged / "model.safetensors")      # a matrix for each expert, as transformers writes them
        self.model = load_model(self.path)


class Tests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="graft_experts_"))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)


def factors_of(folder: pathlib.Path) -> tuple[dict, dict]:
    """adapter_config.json; module -> (A, B)."""
    tensors = load_file(folder / "adapter_model.safetensors")
    modules = {name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"): tensor for name, tensor in tensors.items() if name.endswith(".lora_A.weight")}
    assert 2 * len(modules) == len(tensors)
    return json.loads((folder / "adapter_config.json").read_text()), {module: (a, tensors[f"base_model.model.{module}.lora_B.weight"]) for module, a in modules.items()}


def in_transformers(parameters: dict, module: str) -> torch.Tensor:
    """A matrix of a checkpoint in transformers' parameters, where experts are stacked."""
    match = EXPERT.match(module)
    if not match:
        return parameters[module + ".weight"]
    part = PARTS.get(match[3], match[3])
    name = next(name for name in parameters if name.startswith(match[1] + ".") and name.endswith(".experts.down_proj" if part == "down_proj" else ".experts.gate_up_proj"))
    matrix = parameters[name][int(match[2])]
    return {"gate_proj": matrix[:len(matrix) // 2], "up_proj": matrix[len(matrix) // 2:], "down_proj": matrix}[part]


class Adapters(Tests):
    def check(self, name: str, config: dict, options: dict, expert_module: str, in_peft: bool = True) -> dict:
        base = Mixture(name, config, options, self.folder)
        out = self.folder / f"{name}_out"
        result = exported(base.path, "peft:per-expert", out, "--adapter", base.adapter)
        self.assertIn("vllm serve", result["serve"][0])
        apart_config, apart = factors_of(out)
        stacked_config, stacked = factors_of(base.adapter)
        self.assertNotIn("target_parameters", apart_config)
        self.assertEqual({module.split(".")[-1] for module in apart}, {name.split(".")[-1] for name in apart_config["target_modules"]})
        experts, rank = config.get("num_experts") or config.get("num_local_experts") or config["n_routed_experts"], apart_config["r"]
        scale = apart_config["lora_alpha"] / (rank ** 0.5 if apart_config["use_rslora"] else rank)
        stacked_scale = stacked_config["lora_alpha"] / (stacked_config["r"] ** 0.5 if stacked_config["use_rslora"] else stacked_config["r"])
        found = 0
        for module, (a, b) in apart.items():
            match = EXPERT.match(module)
            if not match:
                self.assertTrue(torch.equal(a, stacked[module][0]) and torch.equal(b, stacked[module][1]), module)
                continue
            found += 1
            part, expert = PARTS.get(match[3], match[3]), int(match[2])
            self.assertRegex(module, expert_module)
            self.assertEqual((a.shape[0], b.shape[1]), (rank, rank), module)
            parameter = next((stacked[key] for key in stacked if key.startswith(match[1] + ".") and key.endswith(".experts" if part == "down_proj" else ".experts.base_layer")), None)
            if parameter is None:
                self.assertEqual((int(a.count_nonzero()), int(b.count_nonzero())), (0, 0), module)
                continue
            all_a, all_b = parameter
            own = all_b.reshape(all_b.shape[0], rank, experts)[:, :, expert]       # expert fastest
            rows = {"gate_proj": own[:own.shape[0] // 2], "up_proj": own[own.shape[0] // 2:], "down_proj": own}[part]
            expected = stacked_scale * rows.double() @ all_a.reshape(experts, rank, -1)[expert].double()
            self.assertLess(relative_l2(scale * b.double() @ a.double(), expected), 1e-6, module)
        self.assertGreater(found, 0)
        self.assertEqual(found % (3 * experts), 0, "gate, up and down of each expert: vLLM takes no part of them")
        # A reader of its own: W + scale B A by the names in the base's files.
        weights = load_file(base.path / "model.safetensors")
        for module, (a, b) in apart.items():
            weights[module + ".weight"] = (weights[module + ".weight"].double() + scale * (b.double() @ a.double())).float()
        added = self.folder / f"{name}_added"
        shutil.copytree(base.path, added)
        save_file(weights, added / "model.safetensors", metadata={"format": "pt"})
        self.assertLess(relative_l2(logits_of_torch(load_model(added), base.ids), base.logits), 1e-5)
        (self.folder / "ids.json").write_text(json.dumps(base.ids))
        done = graft_program.run("logits", base.path, "--adapter", out, "--tokens", self.folder / "ids.json", "--out", self.folder / "logits.safetensors")
        self.assertEqual(done.returncode, 0, done.stderr)
        ours = load_file(self.folder / "logits.safetensors")["logits"]
        self.assertLess(relative_l2(ours, base.logits), 1e-5)
        self.assertLess(relative_l2(ours, logits_of_torch(load_model(added), base.ids)), 1e-5)
        if in_peft:
            self.assertLess(relative_l2(logits_of_torch(PeftModel.from_pretrained(base.model, out).eval(), base.ids), base.logits), 1e-5, "PEFT reads it as an adapter of transformers 4")
        again = self.folder / f"{name}_again"
        exported(base.path, "peft", again, "--adapter", out)
        if all(module in stacked for module in factors_of(again)[1]):
            self.assertEqual(load_file(again / "adapter_model.safetensors").keys(), load_file(base.adapter / "adapter_model.safetensors").keys())
            for key, tensor in load_file(base.adapter / "adapter_model.safetensors").items():
                self.assertTrue(torch.equal(load_file(again / "adapter_model.safetensors")[key], tensor), key)
        return apart_config

    def test_qwen3_moe(self):
        config = self.check("qwen3_moe", qwen3_moe.SMALL, lora(r=3), r"^model\.layers\.\d+\.mlp\.experts\.\d+\.(gate|up|down)_proj$")
        self.assertEqual(config["target_modules"], ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"])

    def test_mixtral(self):
        self.check("mixtral", mixtral.SMALL, lora(), r"^model\.layers\.\d+\.block_sparse_moe\.experts\.\d+\.w[123]$")

    def test_shared_experts_and_dense_layers(self):
        """PEFT with transformers 5 takes every gate_proj of such a model for an expert's, and of rsLoRA doubles the rank of gate and up with its scale: it wants the other layout."""
        self.check("deepseek_v3", deepseek_v3.SMALL, lora("mlp", "mlp.shared_experts", attention=LATENT, use_rslora=True), r"\.mlp\.experts\.\d+\.(gate|up|down)_proj$", in_peft=False)

    def test_a_part_of_the_matrices(self):
        """The others are zeros, and go when the adapter is read again. A name that modules without adapters have too is said in full."""
        options = {"target_modules": ["v_proj"], "target_parameters": ["experts.down_proj"]}
        self.check("down_only", qwen3_moe.SMALL, options, r"experts", in_peft=True)
        config = self.check("down_only_beside_dense", qwen3_moe.SMALL | {"mlp_only_layers": [1]}, options, r"experts", in_peft=False)
        self.assertIn("model.layers.0.mlp.experts.5.down_proj", config["target_modules"])
        self.assertNotIn("down_proj", config["target_modules"])

    def test_what_has_no_experts_apart_is_refused(self):
        base = Mixture("gpt_oss", gpt_oss.SMALL, lora(), self.folder)
        for form, text in {"peft:per-expert": "export peft, which these engines read", "compressed-tensors:w4a16": "export mxfp4, as it is published", "mxfp4": "columns in whole blocks of 32"}.items():
            done = graft_export(base.path, form, self.folder / "refused", "--adapter", base.adapter)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(text, done.stderr)
            self.assertFalse((self.folder / "refused").exists())
        result = exported(base.path, "peft", self.folder / "gpt_oss_out", "--adapter", base.adapter)
        self.assertIn("--max-lora-rank 8 ", result["serve"][0], "the least of vLLM's ranks that holds 4")


class Quantised(Tests):
    def check(self, name: str, config: dict, options: dict, forms=BITS):
        base = Mixture(name, config, options, self.folder)
        for form in forms:
            with self.subTest(form):
                self.check_form(base, form)
        done = graft_export(base.path, "nf4", self.folder / "refused")
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("expected a model without experts for nf4", done.stderr)
        return base

    def check_form(self, base: Mixture, form: str):
        out, twin = self.folder / "export", self.folder / "twin"
        blocks, bound, _ = FORMS[form]
        result = exported(base.path, form, out, "--adapter", base.adapter, "--force")
        self.assertIn(blocks, result["types"])
        config, tensors = json.loads((out / "config.json").read_text()), load_file(out / "model.safetensors")
        modules = quantised_modules(tensors)
        matrices = [name for name, weight in base.merged.items() if ".layers." in name and weight.dim() == 2 and not name.endswith(ROUTERS)]
        self.assertEqual({module + ".weight" for module in modules}, set(matrices), "experts and all other linears of the layers, a matrix each")
        bits = 8 * sum(part.nbytes for module, parts in modules.items() if ".experts." in module for part in parts.values())
        self.assertLess(bits / sum(base.merged[module + ".weight"].numel() for module in modules if ".experts." in module), BITS[form])
        weights = {key: tensor.float() for key, tensor in tensors.items() if not any(key.startswith(module + ".") and key[len(module) + 1:] in parts for module, parts in modules.items())}
        for module, parts in modules.items():
            weights[module + ".weight"] = decoded(parts, config["quantization_config"])
        self.assertEqual(weights.keys(), base.merged.keys())
        for key in matrices:
            self.assertLess(relative_l2(weights[key], base.merged[key]), bound, key)
        shutil.rmtree(twin, ignore_errors=True)
        twin.mkdir()
        (twin / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key != "quantization_config"} | {"dtype": "float32", "torch_dtype": "float32"}))
        save_file({key: tensor.contiguous() for key, tensor in weights.items()}, twin / "model.safetensors", metadata={"format": "pt"})
        expected = logits_of_torch(load_model(twin), base.ids)
        self.assertLess(relative_l2(logits_of_graft(out, base.ids, self.folder), expected), 1e-5, "graft computes with what the library decodes")
        if form in IN_TRANSFORMERS:
            own = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation="eager", quantization_config=CompressedTensorsConfig(dequantize=True)).eval()
            parameters = dict(own.named_parameters())
            for module in modules:
                self.assertLess(relative_l2(in_transformers(parameters, module).detach().float(), weights[module + ".weight"]), 2e-3, "its decoder has products in bfloat16: " + module)

    def test_qwen3_moe(self):
        self.check("qwen3_moe", qwen3_moe.SMALL | WIDE, lora())

    def test_mixtral(self):
        self.check("mixtral", {key: value for key, value in (mixtral.SMALL | WIDE | {"intermediate_size": 128}).items() if key != "moe_intermediate_size"}, lora(), ("compressed-tensors:w4a16", "compressed-tensors:fp8-block", "awq:g64"))

    def test_shared_experts_and_dense_layers(self):
        latents = {"q_lora_rank": 128, "kv_lora_rank": 128, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32, "intermediate_size": 256, "num_key_value_heads": 4}
        config = {key: value for key, value in (deepseek_v3.SMALL | WIDE | latents).items() if key != "head_dim"}
        self.check("deepseek_v3", config, lora("mlp", "mlp.shared_experts", attention=LATENT), ("compressed-tensors:w4a16", "compressed-tensors:nvfp4", "gptq"))

    def test_a_base_that_has_them_stacked(self):
        """As Qwen3.5 is published: one tensor of all experts, which the export takes apart."""
        config = qwen3_moe.SMALL | WIDE
        model = write_model(Case("experts_stacked", config, stacked=True), self.folder / "stacked")
        self.assertIn("model.layers.0.mlp.experts.gate_up_proj", load_file(self.folder / "stacked" / "model.safetensors"))
        apart = write_model(Case("experts_stacked", config), self.folder / "apart")
        self.assertTrue(all(torch.equal(x, y) for x, y in zip(model.state_dict().values(), apart.state_dict().values())))
        for form in ("compressed-tensors:w4a16", "compressed-tensors:fp8-block"):
            for name in ("stacked", "apart"):
                exported(self.folder / name, form, self.folder / f"{name}_export", "--force")
            self.assertEqual((self.folder / "stacked_export" / "model.safetensors").read_bytes(), (self.folder / "apart_export" / "model.safetensors").read_bytes())

    def test_experts_are_in_one_form(self):
        """vLLM multiplies gate, up and down of a layer's experts in one form: where one does not fit, none is quantised."""
        config = qwen3_moe.SMALL | WIDE | {"moe_intermediate_size": 96}
        write_model(Case("experts_odd", config), self.folder / "odd")
        result = exported(self.folder / "odd", "compressed-tensors:fp8-block", self.folder / "odd_export")
        tensors, ignored = load_file(self.folder / "odd_export" / "model.safetensors"), json.loads((self.folder / "odd_export" / "config.json").read_text())["quantization_config"]["ignore"]
        self.assertFalse([module for module in quantised_modules(tensors) if ".experts." in module])
        self.assertIn("model.layers.0.mlp.experts.0.gate_proj", ignored)
        self.assertIn("linear layers stay BF16", " ".join(result["notes"]))

    def test_gpt_oss_in_its_own_form(self):
        """Experts in MXFP4 as OpenAI publishes them: transformers decodes them to what graft computes with, and experts without an adapter keep their bytes."""
        base = Mixture("gpt_oss", gpt_oss.BLOCKS, lora(), self.folder)
        out = self.folder / "gpt_oss_export"
        result = exported(base.path, "mxfp4", out, "--adapter", base.adapter)
        self.assertIn("MXFP4 6", result["types"])
        tensors, experts = load_file(out / "model.safetensors"), gpt_oss.BLOCKS["num_local_experts"]
        width, hidden = gpt_oss.BLOCKS["intermediate_size"], gpt_oss.BLOCKS["hidden_size"]
        self.assertEqual(tensors["model.layers.0.mlp.experts.gate_up_proj_blocks"].shape, (experts, 2 * width, hidden // 32, 16))
        self.assertEqual(tensors["model.layers.0.mlp.experts.down_proj_scales"].shape, (experts, hidden, width // 32))
        own = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation="eager", quantization_config=Mxfp4Config(dequantize=True)).eval()
        own.set_experts_implementation("eager")
        weights = dict(own.named_parameters())
        for name, merged in base.merged.items():
            self.assertLess(relative_l2(weights[name].detach(), merged), 0.13 if name.endswith(("gate_up_proj", "down_proj")) else 4e-3, name)
        self.assertLess(relative_l2(logits_of_graft(out, base.ids, self.folder), logits_of_torch(own, base.ids)), 1e-5)
        again = self.folder / "gpt_oss_again"
        exported(out, "mxfp4", again)
        for name, tensor in tensors.items():
            self.assertTrue(torch.equal(load_file(again / "model.safetensors")[name], tensor), name)
        done = graft_export(self.mixture_apart(), "mxfp4", self.folder / "refused")
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("export compressed-tensors:mxfp4", done.stderr)

    def mixture_apart(self) -> pathlib.Path:
        write_model(Case("experts_apart", qwen3_moe.SMALL), self.folder / "mixture_apart")
        return self.folder / "mixture_apart"

    def test_qwen3_5_moe(self):
        config = qwen3_5_moe_text.SMALL | WIDE | {"shared_expert_intermediate_size": 128, "num_hidden_layers": 4, "linear_key_head_dim": 32, "linear_value_head_dim": 32,
                                                  "linear_num_key_heads": 4, "linear_num_value_heads": 8,
                                                  "rope_parameters": qwen3_5_moe_text.SMALL["rope_parameters"] | {"mrope_section": [3, 3, 2]}}
        self.check("qwen3_5_moe", config, lora("mlp.shared_expert"), ("compressed-tensors:w4a16:g32",))


if __name__ == "__main__":
    graft_program.main()
