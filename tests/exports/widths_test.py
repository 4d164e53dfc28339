#!/usr/bin/env python3
"""Students with narrower layers: `graft export --intermediate, --kv-heads, --hidden`. What is kept is what forward hooks in PyTorch choose on the same rows, and the student computes what the
merged model does when its weights are cut here.

  widths_test.py --graft PROGRAM [Families|Students...]
"""
import collections
import copy
import functools
import json
import pathlib
import shutil
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support"), str(HERE.parent / "conformance")]
import golden   # first: it hides bitsandbytes from PEFT
import graft_program
from tiny_chat_model import make_tiny_chat_model, write_rows

import gguf
import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(1)
SIZES = {"hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 16, "rms_norm_eps": 1e-3}
FAMILIES = {"llama": {"attention_bias": True, "mlp_bias": True}, "qwen2": {"head_dim": 8}, "qwen3": {"tie_word_embeddings": True}, "phi3": {"head_dim": 8, "pad_token_id": None},
            "glm": {"head_dim": 16, "pad_token_id": None}, "olmo2": {"head_dim": 8, "pad_token_id": None},
            "gemma2": {"query_pre_attn_scalar": 16, "sliding_window": 9, "tie_word_embeddings": True}, "gemma3_text": {"query_pre_attn_scalar": 16, "sliding_window": 9, "tie_word_embeddings": True}}
WIDTHS = {"--intermediate": 20, "--kv-heads": 2, "--hidden": 32}


class Base:
    """A tiny random model, the rows of a short run on it, and the run's merged model in PyTorch."""
    def __init__(self, folder: pathlib.Path, name: str, trained: bool = True, **config):
        self.folder, self.path = folder, make_tiny_chat_model(folder / f"{name}{'' if trained else '_alone'}", **(SIZES | {"model_type": name} | config))
        self.model = AutoModelForCausalLM.from_pretrained(self.path, dtype=torch.float32, attn_implementation="eager").eval()
        golden.randomise(self.model, golden.generator_of(name))
        self.model.save_pretrained(self.path)
        self.rows = write_rows(folder / "rows.jsonl", 24)
        self.run = self.train(self.path, f"{name}_run") if trained else None
        if trained:
            plain = self.logits(self.model)
            self.model = PeftModel.from_pretrained(self.model, self.run / "adapter").merge_and_unload().eval()
            assert (self.logits(self.model) - plain).norm() > 0.02 * plain.norm(), "the tests below would pass without the adapter"
        self.config = json.loads((self.path / "config.json").read_text())
        self.squares = self.activations()

    def train(self, base: pathlib.Path, name: str) -> pathlib.Path:
        recipe = {"accept_licence": "unknown", "model": {"base": str(base), "compute": "float32"}, "adapter": {"rank": 4, "alpha": 8},
                  "data": {"train": [{"path": str(self.rows), "format": "labelled", "prompt": "{text}"}]}, "optimizer": {"learning_rate": 0.05, "batch_rows": 24},
                  "schedule": {"steps": 2, "shape": "constant", "warmup": 0}, "run": {"threads": 1, "device": "cpu", "out": str(self.folder / name), "cache": str(self.folder / "cache")}, "export": []}
        (self.folder / f"{name}.yaml").write_text(json.dumps(recipe))
        done = graft_program.run("train", self.folder / f"{name}.yaml")
        assert done.returncode == 0, done.stderr
        return self.folder / name

    @functools.cached_property
    def ids(self) -> list[list[int]]:
        rows = [json.loads(line) for line in self.rows.read_text().splitlines()]
        asked = self.folder / "asked.jsonl"
        asked.write_text("".join(json.dumps({"messages": [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": row["label"]}]}) + "\n" for row in rows))
        return [json.loads(line)["ids"] for line in graft_program.run("render", self.path, "--file", asked).stdout.splitlines()]

    def logits(self, model, ids=None) -> torch.Tensor:
        with torch.no_grad():
            return model(torch.tensor([ids or self.ids[0]])).logits[0].float()

    def activations(self) -> dict[str, torch.Tensor]:
        """Of each linear module the sums over tokens of the squares of its inputs."""
        sums, hooks = collections.defaultdict(float), []
        for name, module in self.model.named_modules():
            if isinstance(module, torch.nn.Linear) and name.endswith("_proj"):
                def see(module, inputs, output, name=name):
                    sums[name] = sums[name] + inputs[0].double().square().reshape(-1, module.in_features).sum(0)
                hooks.append(module.register_forward_hook(see))
        with torch.no_grad():
            for ids in self.ids:
                self.model(torch.tensor([ids]))
        for hook in hooks:
            hook.remove()
        return dict(sums)

    def chosen(self, widths: dict, layers: list[int]) -> dict:
        """What kept.json has to say."""
        def largest(values, count):
            return sorted(sorted(range(len(values)), key=lambda i: -values[i])[:count])
        kept, hidden = {"kv_heads": [], "intermediate": []}, 0
        for layer in range(self.config["num_hidden_layers"]):
            of = {name.split(".")[-1]: sums for name, sums in self.squares.items() if f".layers.{layer}." in name}
            if layer in layers:
                if "--kv-heads" in widths:
                    kept["kv_heads"].append(largest(of["o_proj"].view(self.config["num_key_value_heads"], -1).sum(1).tolist(), widths["--kv-heads"]))
                if "--intermediate" in widths:
                    kept["intermediate"].append(largest(of["down_proj"].tolist(), widths["--intermediate"]))
            if "--hidden" in widths:
                hidden = hidden + of["qkv_proj" if "qkv_proj" in of else "q_proj"] + of["gate_up_proj" if "gate_up_proj" in of else "up_proj"]
        if "--hidden" in widths:
            kept["hidden"] = largest(hidden.tolist(), widths["--hidden"])
        return {key: value for key, value in kept.items() if value}

    def cut(self, widths: dict, layers: list[int]) -> torch.nn.Module:
        """The merged model with the weights that are kept."""
        kept, config = self.chosen(widths, layers), copy.deepcopy(self.model.config)
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        everything = lambda count: list(range(count))
        hidden = kept.get("hidden", everything(config.hidden_size))
        config.head_dim, config.hidden_size, config.num_hidden_layers = size, len(hidden), len(layers)
        config.num_key_value_heads = widths.get("--kv-heads", kv_heads)
        config.num_attention_heads = config.num_key_value_heads * heads // kv_heads
        wide = config.intermediate_size
        config.intermediate_size = widths.get("--intermediate", wide)
        if getattr(config, "layer_types", None):
            config.layer_types = [config.layer_types[layer] for layer in layers]
        weights = {}
        for name, weight in self.model.state_dict().items():
            part = name.removesuffix(".weight").removesuffix(".bias").split(".")[-1]
            if ".layers." in name:
                place = int(name.split(".")[2])
                if place not in layers:
                    continue
                new = layers.index(place)
                name = name.replace(f".layers.{place}.", f".layers.{new}.")
                inner = kept["intermediate"][new] if "intermediate" in kept else everything(wide)
                groups = kept["kv_heads"][new] if "kv_heads" in kept else everything(kv_heads)
                keys = [group * size + i for group in groups for i in range(size)]
                queries = [head * size + i for head in range(heads) if head * kv_heads // heads in groups for i in range(size)]
            whole_norms = config.model_type == "olmo2"
            rows = {"q_proj": lambda: queries, "k_proj": lambda: keys, "v_proj": lambda: keys, "gate_proj": lambda: inner, "up_proj": lambda: inner,
                    "qkv_proj": lambda: queries + [heads * size + i for i in keys] + [(heads + kv_heads) * size + i for i in keys], "gate_up_proj": lambda: inner + [wide + i for i in inner],
                    "q_norm": lambda: queries if whole_norms else everything(size), "k_norm": lambda: keys if whole_norms else everything(size),
                    "embed_tokens": lambda: everything(len(weight)), "lm_head": lambda: everything(len(weight))}.get(part, lambda: hidden)()
            columns = {"o_proj": lambda: queries, "down_proj": lambda: inner}.get(part, lambda: hidden)()
            if ".experts." in name or name.endswith(".mlp.gate.weight"):
                weights[name] = weight
            else:
                weights[name] = weight[rows] if weight.dim() == 1 else weight[rows][:, columns]
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
        model.load_state_dict(weights)
        return model


def without(folder: pathlib.Path, *keys: str) -> pathlib.Path:
    """The model without what tiny_chat_model says of its configuration and its family does not know."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key not in keys}))
    return folder


class Tests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="graft_widths_"))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def export(self, model, *options, form="safetensors:F32") -> pathlib.Path:
        out = self.folder / "student"
        done = graft_program.run("export", model, "--to", form, "--out", out, "--force", *options)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.notes = done.stderr
        return out

    def assert_refused(self, text: str, model, *options, form="safetensors"):
        out = self.folder / ("refused.gguf" if form.startswith("gguf:") else "refused")
        done = graft_program.run("export", model, "--to", form, "--out", out, *options)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn(text, done.stderr)
        self.assertFalse(out.exists())

    def check(self, base: Base, widths: dict, layers=None, model=None, more=(), layers_as="") -> pathlib.Path:
        options = [text for option in widths.items() for text in option] + (["--layers", layers_as or ",".join(map(str, layers))] if layers else [])
        out = self.export(model or base.run, *options, *more)
        layers = layers or list(range(base.config["num_hidden_layers"]))
        kept = json.loads((out / "kept.json").read_text())
        self.assertEqual({key: kept[key] for key in ("hidden", "kv_heads", "intermediate") if key in kept}, base.chosen(widths, layers))
        expected = base.logits(base.cut(widths, layers))
        theirs = base.logits(AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation="eager").eval())
        self.assertLess((theirs - expected).norm(), 1e-5 * expected.norm())
        (self.folder / "ids.json").write_text(json.dumps(base.ids[0]))
        done = graft_program.run("logits", out, "--tokens", self.folder / "ids.json", "--out", self.folder / "logits.safetensors")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertLess((load_file(self.folder / "logits.safetensors")["logits"] - expected).norm(), 1e-5 * expected.norm())
        return out


class Families(Tests):
    def test_all_widths_at_once(self):
        for name, config in FAMILIES.items():
            with self.subTest(name):
                out = self.check(Base(self.folder, name, **config), WIDTHS)
                config = json.loads((out / "config.json").read_text())
                self.assertEqual((config["hidden_size"], config["intermediate_size"], config["num_attention_heads"], config["num_key_value_heads"]), (32, 20, 4, 2))
                self.assertEqual(AutoConfig.from_pretrained(out).head_dim if name != "phi3" else config.get("head_dim", 8), FAMILIES[name].get("head_dim", 16))

    def test_heads_beside_experts(self):
        base = Base(self.folder, "qwen3_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
        self.check(base, {"--kv-heads": 1})
        self.assert_refused("expected one MLP in each layer for --intermediate, got experts in qwen3_moe", base.run, "--intermediate", 8)
        self.assert_refused("for --hidden, got experts", base.run, "--hidden", 32)

    def test_families_that_an_option_does_not_fit(self):
        latent = make_tiny_chat_model(self.folder / "latent", model_type="deepseek_v3", num_key_value_heads=4, q_lora_rank=16, kv_lora_rank=32, qk_nope_head_dim=32, qk_rope_head_dim=8,
                                      v_head_dim=16, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, n_shared_experts=1, first_k_dense_replace=1, n_group=1, topk_group=1)
        self.assert_refused("for --kv-heads, got latent attention in deepseek_v3", latent, "--kv-heads", 2, "--importance", self.folder / "none")
        bloom = without(make_tiny_chat_model(self.folder / "bloom", model_type="bloom", n_layer=2, n_head=4, hidden_size=64), "intermediate_size", "max_position_embeddings", "num_key_value_heads",
                        "rms_norm_eps")
        self.assert_refused("got linear biases that follow from a head's place in bloom", bloom, "--kv-heads", 2, "--importance", self.folder / "none")
        delta = make_tiny_chat_model(self.folder / "delta", model_type="qwen3_5_text", num_hidden_layers=4, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8,
                                     linear_value_head_dim=8, head_dim=16)
        self.assert_refused("for --kv-heads, got delta attention in qwen3_5_text", delta, "--kv-heads", 1, "--importance", self.folder / "none")


class Students(Tests):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.base = Base(cls.folder, "llama", attention_bias=True, mlp_bias=True)

    def test_each_width(self):
        for widths in ({"--intermediate": 55}, {"--intermediate": 1}, {"--kv-heads": 1}, {"--kv-heads": 2}, {"--hidden": 42}, {"--hidden": 6}):
            with self.subTest(widths):
                self.check(self.base, widths)

    def test_with_layers_left_out(self):
        out = self.check(self.base, WIDTHS, layers=[0, 2])
        self.assertEqual(json.loads((out / "kept.json").read_text())["layers"], [0, 2])

    def test_layers_that_change_most(self):
        sums = [0.0] * 3
        def see(module, inputs, output, layer):
            sums[layer] += torch.nn.functional.cosine_similarity(inputs[0].double(), (output[0] if isinstance(output, tuple) else output).double(), dim=-1).sum().item()
        hooks = [module.register_forward_hook(lambda module, inputs, output, layer=layer: see(module, inputs, output, layer)) for layer, module in enumerate(self.base.model.model.layers)]
        for ids in self.base.ids:
            self.base.logits(self.base.model, ids)
        for hook in hooks:
            hook.remove()
        order = sorted(range(3), key=lambda layer: sums[layer])
        for count in (1, 2):
            layers = sorted(order[:count])
            out = self.check(self.base, {"--kv-heads": 2}, layers, layers_as=f"best:{count}")
            kept = json.loads((out / "kept.json").read_text())
            self.assertEqual(kept["layers"], layers)
            self.assertIn("cosine", kept["layers_chosen_by"])
        self.export(self.base.run, "--layers", "best:2")
        self.assert_refused("expected fewer than the base's 3 layers, got best:3", self.base.run, "--layers", "best:3")
        self.assert_refused("or best:15, got 'best:0'", self.base.run, "--layers", "best:0")
        self.assert_refused("expected rows to choose by, got a model without a run", self.base.path, "--layers", "best:2")

    def test_what_is_said(self):
        out = self.check(self.base, WIDTHS)
        tokens = sum(map(len, self.base.ids))
        line = (f"kept 32 of 48 channels of the residual stream; 2 of 3 key-value heads of each layer, with 4 of 6 query heads; 20 of 56 channels of each MLP, "
                f"by mean squares of activations over {tokens} tokens of rows.jsonl; which ones: kept.json")
        self.assertIn(line, self.notes)
        self.assertIn(line, (out / "README.md").read_text())

    def test_it_can_be_trained(self):
        student = self.folder / "to_train"
        shutil.copytree(self.check(self.base, WIDTHS), student)
        run = self.base.train(student, "student_run")
        losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        self.assertLess(losses[1], losses[0])

    def test_a_model_without_a_run(self):
        """With an importance matrix of its own, as llama-imatrix writes them; of a directory and of a GGUF file, where rows of queries and keys lie otherwise."""
        base = Base(self.folder, "llama", trained=False)
        self.assert_refused("expected rows to choose by, got a model without a run", base.path, "--kv-heads", 1)
        writer = gguf.GGUFWriter(str(self.folder / "imatrix.gguf"), "")
        writer.add_type("imatrix")
        writer.add_array("imatrix.datasets", ["/home/somebody/rows.txt"])
        writer.add_uint32("imatrix.chunk_count", 1)
        writer.add_uint32("imatrix.chunk_size", 512)
        tokens = sum(map(len, base.ids))
        names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output", "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
        for name, sums in base.squares.items():
            entry = f"blk.{name.split('.')[2]}.{names[name.split('.')[-1]]}.weight"
            writer.add_tensor(f"{entry}.in_sum2", sums.float().numpy()[None])
            writer.add_tensor(f"{entry}.counts", np.array([[tokens]], np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        out = self.check(base, WIDTHS, model=base.path, more=("--importance", self.folder / "imatrix.gguf"))
        for name in ("kept.json", "README.md"):
            self.assertIn(f"over {tokens} tokens of rows.txt", (out / name).read_text())
            self.assertNotIn("somebody", (out / name).read_text())
        shutil.copytree(base.path, self.folder / "to_convert")
        done = graft_program.run("export", self.folder / "to_convert", "--to", "gguf:F32", "--out", self.folder / "base.gguf")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.check(base, WIDTHS, model=self.folder / "base.gguf", more=("--importance", self.folder / "imatrix.gguf"))
        other = make_tiny_chat_model(self.folder / "other")
        self.assert_refused("expected activations of 96 columns of blk.0.ffn_down.weight, got 56", other, "--intermediate", 8, "--importance", self.folder / "imatrix.gguf")

    def test_quantised_students(self):
        """In a form of blocks: what remains is quantised, near the student in float32."""
        out = self.export(self.base.run, "--kv-heads", 2, "--hidden", 32, form="compressed-tensors:fp8")
        config = json.loads((out / "config.json").read_text())
        self.assertEqual((config["hidden_size"], config["num_key_value_heads"]), (32, 2))
        (self.folder / "ids.json").write_text(json.dumps(self.base.ids[0]))
        done = graft_program.run("logits", out, "--tokens", self.folder / "ids.json", "--out", self.folder / "logits.safetensors")
        self.assertEqual(done.returncode, 0, done.stderr)
        expected = self.base.logits(self.base.cut({"--kv-heads": 2, "--hidden": 32}, [0, 1, 2]))
        self.assertLess((load_file(self.folder / "logits.safetensors")["logits"] - expected).norm(), 0.1 * expected.norm())

    def test_numbers_that_do_not_go(self):
        for option, of_base in (("--intermediate", 56), ("--kv-heads", 3), ("--hidden", 48)):
            for number in (0, -1, of_base, of_base + 1):
                self.assert_refused(f"expected {option} above 0 and below the base's {of_base} ", self.base.run, option, number)
        self.assert_refused("expected a hidden width that is a multiple of the attention heads, as transformers wants of llama, got 32 and 6", self.base.run, "--hidden", 32)
        self.assert_refused("expected a merged form in Hugging Face layout", self.base.run, "--kv-heads", 1, form="gguf:F16")
        self.assert_refused("expected a merged form in Hugging Face layout", self.base.run, "--kv-heads", 1, form="peft")
        self.assert_refused("expected layers of 0 to 2, got 3", self.base.run, "--kv-heads", 1, "--layers", "0,3")
        gpt2 = make_tiny_chat_model(self.folder / "gpt2", model_type="gpt2", n_layer=2, n_head=4)
        run = self.base.train(without(gpt2, "intermediate_size", "num_key_value_heads", "rms_norm_eps"), "gpt2_run")
        self.assert_refused("expected config.json to be able to say which layers are left, and how wide", run, "--kv-heads", 2)
        self.export(run, "--kv-heads", 2, "--hidden", 32)   # the size of a head stays hidden width / heads


if __name__ == "__main__":
    graft_program.main()
