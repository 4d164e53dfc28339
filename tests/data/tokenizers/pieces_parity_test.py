"""Sentencepiece's kinds of tokenizers and tiktoken files: identical ids and bytes to sentencepiece, tokenizers, tiktoken and llama.cpp.
Argument: the tokenize_tool program.

GRAFT_SENTENCEPIECE_MODELS may name a folder of .model files (mistral-common's and those of sentencepiece's source distribution): these are
compared too.
"""
import base64
import json
import os
import subprocess
import tempfile
import unicodedata
import unittest
from pathlib import Path

from parity_test import KIND_COUNT, TOOL, Compared, cut_anywhere, decode_all, decode_bytes, encode_all, every_code_point, ids_of, run_tool  # first: it sets the paths

import reference_sentencepiece
import reference_tokenizers
from kinds import invalid_bytes, kinds
from reference_sentencepiece import in_tokenizers, library, model
from texts import texts

ADDED = ["<unk>", "<unk><unk>", "<s>", "</s>", "<left>", "  <left>  ", "<right>  ", " word ", "words", "学生", " 学生 "]
HAN_LESS, CASED, CONTRACTIONS = r"&&[^\p{Han}]]", (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}"), r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
KIMI = "|".join([r"[\p{Han}]+", rf"[^\r\n\p{{L}}\p{{N}}]?{CASED[0]}{HAN_LESS}*{CASED[1]}{HAN_LESS}+{CONTRACTIONS}", rf"[^\r\n\p{{L}}\p{{N}}]?{CASED[0]}{HAN_LESS}+{CASED[1]}{HAN_LESS}*{CONTRACTIONS}",
                 r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])


def directory_of(folder, kind, config=None):
    directory = Path(folder) / kind
    directory.mkdir()
    (directory / "tokenizer.model").write_bytes(model(kind))
    if config is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


def encode_hex(model_, strings):
    return run_tool(model_, [{"hex": raw.hex()} for raw in strings])


def write_gguf(model_, folder):
    done = subprocess.run([TOOL, model_, "--gguf", folder], capture_output=True)
    if done.returncode != 0:
        raise AssertionError(done.stderr.decode())
    return Path(folder) / "vocabulary.gguf", json.loads((Path(folder) / "gguf.json").read_text())["differences"]


def tidy(text):
    """Both write U+FFFD for what is no character, but not as many; of spaces that begin or end a text the library takes more."""
    return text.replace("\ufffd", "").strip(" ")


class Pieces(Compared):
    def compare_with_library(self, directory, processor, name):
        """The sentencepiece library encodes bytes of any kind; its text of the unknown piece is " ⁇ ", ours its spelling."""
        for kind, strings in kinds(KIND_COUNT).items():
            ours = ids_of(directory, strings)
            self.assert_same(strings, ours, processor.encode(strings), f"{name}, {kind}")
            known = [ids for ids in ours if processor.unk_id() not in ids]
            self.assert_same(known, run_tool(directory, [{"ids": ids} for ids in known], "--decode"), processor.decode(known), f"{name}, {kind}, decoded")
        strings = invalid_bytes(KIND_COUNT)
        ours = encode_hex(directory, strings)
        self.assert_same(strings, ours, [processor.encode(raw) for raw in strings], name + ", invalid bytes")
        broken = [ids for ids in cut_anywhere(ours, processor.get_piece_size()) if processor.unk_id() not in ids and not any(processor.is_control(i) for i in ids)]
        self.assert_same(broken, [tidy(text) for text in run_tool(directory, [{"ids": ids} for ids in broken], "--decode")],
                         [tidy(processor.decode(ids)) for ids in broken], name + ", broken characters")


class Files(Pieces):
    def test_as_the_library(self):
        with tempfile.TemporaryDirectory() as folder:
            for kind in reference_sentencepiece.KINDS:
                with self.subTest(kind):
                    self.compare_with_library(directory_of(folder, kind), library(kind), kind)

    def test_every_code_point(self):
        strings = every_code_point(64)
        with tempfile.TemporaryDirectory() as folder:
            for kind in ("bpe_llama", "bpe_chatglm", "unigram_t5"):
                with self.subTest(kind):
                    self.assert_same(strings, ids_of(directory_of(folder, kind), strings), library(kind).encode(strings), kind)

    def test_control_pieces_and_config(self):
        """Control pieces in a text are tokens, as transformers' classes have them: each stretch of text between them is encoded by itself."""
        processor = library("bpe_llama")
        special = {"<s>": 1, "</s>": 2, "<|user|>": processor.get_piece_size()}
        config = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
                  "added_tokens_decoder": {str(i): {"content": token, "special": True, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False} for token, i in special.items()}}
        with tempfile.TemporaryDirectory() as folder:
            directory = directory_of(folder, "bpe_llama", config)
            ours = run_tool(directory, [{"text": "<s>Hello  there</s>\n<|user|>a <unk>"}], "--special")[0]
            self.assertEqual(ours, [1, 1] + processor.encode("Hello  there") + [2] + processor.encode("\n") + [special["<|user|>"]] + processor.encode("a ") + [0])  # the config names <unk>: it is found in the text
            info = run_tool(directory, [], "--info")[0]
            self.assertEqual((info["bos"], info["eos"], info["unk"], info["vocab_size"]), (1, 2, 0, processor.get_piece_size() + 1))

    def test_chatglm(self):
        """The control tokens that ChatGLM's class adds, and what it puts before a text."""
        size = library("bpe_chatglm").get_piece_size()
        with tempfile.TemporaryDirectory() as folder:
            directory = directory_of(folder, "bpe_chatglm", {"tokenizer_class": "ChatGLMTokenizer", "name_or_path": "THUDM/chatglm3-6b"})
            self.assertEqual(ids_of(directory, ["[gMASK]sop<|user|>\n hi", "eop"]), [[size + 1, size + 3, size + 6] + library("bpe_chatglm").encode("\n hi"), [size + 4]])
            self.assertEqual(ids_of(directory, ["hi"], "--special"), [[size + 1, size + 3] + library("bpe_chatglm").encode("hi")])

    @unittest.skipUnless(os.environ.get("GRAFT_SENTENCEPIECE_MODELS"), "GRAFT_SENTENCEPIECE_MODELS is not set")
    def test_real_models(self):
        import sentencepiece
        for path in sorted(Path(os.environ["GRAFT_SENTENCEPIECE_MODELS"]).rglob("*.model*")):
            with self.subTest(path.name), tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "tokenizer.model").write_bytes(path.read_bytes())
                self.compare_with_library(folder, sentencepiece.SentencePieceProcessor(model_file=str(path)), path.name)
                print("same:", path.name)


FORMS = [("bpe_llama", "prepend"), ("bpe_llama", "first"), ("bpe_gemma", "gemma"), ("bpe_across_words", "prepend"), ("bpe_without_bytes", "first"), ("unigram_t5", "words"), ("unigram_bytes", "words"),
         ("unigram_bytes", "first"), ("unigram_t5", "prepend")]


class PieceJson(Compared):
    def test_as_tokenizers(self):
        mixed = texts(ADDED)
        with tempfile.TemporaryDirectory() as folder:
            for kind, form in FORMS:
                name = f"{kind} {form}"
                with self.subTest(name):
                    directory = Path(folder) / f"{kind}_{form}"
                    directory.mkdir()
                    tokenizer = in_tokenizers(kind, form)
                    tokenizer.save(str(directory / "tokenizer.json"))
                    given = [(group, text) for group, strings in (kinds(KIND_COUNT) | {"mixed": mixed, "every code point": every_code_point(64)}).items() for text in strings]
                    strings = [text for _, text in given]
                    ours = ids_of(directory, strings)
                    self.assert_same(given, ours, encode_all(tokenizer, strings), name)
                    self.assert_same(given, run_tool(directory, [{"ids": ids} for ids in ours], "--decode"), tokenizer.decode_batch(ours, skip_special_tokens=False), name + ", decoded")

    def test_written_again(self):
        """What graft writes of a .model file or a tokenizer.json, transformers loads to the same ids."""
        from transformers import AutoTokenizer
        strings = texts(["<s>", "</s>"], count=1200) + [text for group in kinds(200).values() for text in group]
        # Cuts of equal score: tokenizers adds in double, the sentencepiece library in float, so one of them may find another one.
        least_same = {"unigram_t5": 0.97, "unigram_bytes": 0.97}
        for kind in ("bpe_llama", "bpe_gemma", "unigram_t5", "unigram_bytes"):
            with self.subTest(kind), tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as out:
                directory = directory_of(folder, kind, {"bos_token": "<s>", "eos_token": "</s>"})
                subprocess.run([TOOL, directory, "--write", out], check=True, capture_output=True)
                theirs = AutoTokenizer.from_pretrained(out)
                # (tokenizers applies a charsmap by graphemes: to texts in NFKC both do the same.)
                given = [unicodedata.normalize("NFKC", text) for text in strings] if kind == "unigram_t5" else strings
                ours, loaded = ids_of(directory, given), theirs(given, add_special_tokens=False)["input_ids"]
                self.assert_same(given, ids_of(out, given), loaded, f"{kind} read again")
                if kind in least_same:
                    same = sum(a == b for a, b in zip(ours, loaded)) / len(given)
                    self.assertGreater(same, least_same[kind], kind)
                else:
                    self.assert_same(given, loaded, ours, f"{kind} in transformers")


class Tiktoken(Compared):
    def ranks(self):
        """The merges of the byte-level tests as ranks."""
        with tempfile.TemporaryDirectory() as folder:
            reference_tokenizers.make(folder, "any", *reference_tokenizers.shapes()["llama3"], Tiktoken.trained)
        letters = {letter: byte for byte, letter in __import__("parity_test").BYTE_LETTERS.items()}
        vocabulary = Tiktoken.trained["model"]["vocab"]
        spelled = sorted((i, token) for token, i in vocabulary.items() if token not in reference_tokenizers.SPECIALS)
        return {bytes(letters[letter] for letter in token): rank for rank, (_, token) in enumerate(spelled)}
    trained = {}

    def test_as_tiktoken(self):
        import tiktoken
        from tokenizers import normalizers
        ranks = self.ranks()
        size = len(ranks)
        named = {str(size + i): {"content": token, "special": True} for i, token in enumerate(["[BOS]", "[EOS]", "<|im_end|>"])}
        nfc = normalizers.NFC().normalize_str  # the class calls Python's, whose Unicode depends on the Python
        for class_, file, pattern, normalize, decoder, special in (
                ("TikTokenTokenizer", "tiktoken.model", KIMI, str, named, {"[BOS]": size, "<|im_end|>": size + 2, f"<|reserved_token_{size + 9}|>": size + 9}),
                ("ChatGLM4Tokenizer", "tokenizer.model", reference_tokenizers.PATTERNS["llama3"], str, named, {"<|im_end|>": size + 2}),
                ("HYTokenizer", "hunyuan.tiktoken", reference_tokenizers.PATTERNS["qwen2"], nfc, None, {"<|startoftext|>": size + 1, "<|extra_0|>": size + 5}),
                ("QWenTokenizer", "qwen.tiktoken", reference_tokenizers.PATTERNS["qwen2"], nfc, None, {"<|im_end|>": size + 2, "<|extra_204|>": size + 207})):
            with self.subTest(class_), tempfile.TemporaryDirectory() as folder:
                directory = Path(folder)
                (directory / file).write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
                (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": class_} | ({"added_tokens_decoder": decoder} if decoder else {})))
                encoding = tiktoken.Encoding(class_, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
                groups = kinds(KIND_COUNT) | {"mixed": texts(list(special)), "every code point": [text for text in every_code_point(64)]}
                for group, strings in groups.items():
                    ours = ids_of(directory, strings)
                    self.assert_same(strings, ours, [encoding.encode(normalize(text), allowed_special="all") for text in strings], f"{class_}, {group}")
                    self.assert_same(strings, decode_bytes(directory, ours), [encoding.decode_bytes(ids) for ids in ours], f"{class_}, {group}, decoded bytes")
                strings = invalid_bytes(KIND_COUNT)
                if class_ == "TikTokenTokenizer":
                    self.assert_same(strings, decode_bytes(directory, encode_hex(directory, strings)), strings, "invalid bytes, decoded")
                prefix = run_tool(directory, [{"text": ""}], "--special")[0]
                self.assertEqual(prefix, [size + 1] if class_ == "HYTokenizer" else [], class_)

    def test_any_ranks(self):
        """Vocabularies that no training makes: tokens of few letters in any order, most of them made by several pairs."""
        import random
        import tiktoken
        chance = random.Random(11)
        for number in range(60):
            letters = "abc"[:chance.randint(1, 3)]
            tokens = ["".join(chance.choices(letters, k=chance.randint(2, 6))) for _ in range(chance.randint(3, 30))]
            # Every byte is a token, some of them behind longer ones.
            ranked = list(dict.fromkeys([bytes([byte]) for byte in range(256) if chr(byte) not in letters] + chance.sample([*letters, *tokens], len(letters) + len(tokens))))
            ranks = {token if isinstance(token, bytes) else token.encode(): rank for rank, token in enumerate(ranked)}
            with self.subTest(number), tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "tiktoken.model").write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
                (Path(folder) / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "TikTokenTokenizer"}))
                strings = ["".join(chance.choices(letters, k=chance.randint(1, 90))) for _ in range(100)]
                encoding = tiktoken.Encoding("any", pat_str=KIMI, mergeable_ranks=ranks, special_tokens={})
                self.assert_same(strings, ids_of(folder, strings), [encoding.encode(text) for text in strings], f"vocabulary {number}")

    def test_without_a_known_class(self):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "tokenizer.model").write_bytes(b"YQ== 0\nYg== 1\n")
            done = subprocess.run([TOOL, folder, "--info"], capture_output=True)
            self.assertEqual(done.returncode, 2)
            self.assertIn("HYTokenizer", done.stderr.decode())


class Gguf(Compared):
    def compare_with_llama_cpp(self, path, name, pieces=True):
        """All that graft reads from a GGUF file is what llama.cpp makes of it, invalid bytes included. Byte-level splits only on characters
        that llama.cpp's older Unicode knows, and not decoded: its clean-up takes spaces before some signs."""
        from llama_cpp import LlamaCpp
        engine = LlamaCpp(str(path), vocabulary_only=True)
        self.addCleanup(engine.close)
        groups = kinds(KIND_COUNT) | {"mixed": [text for text in texts(["<s>", "</s>"]) if text], "every code point": every_code_point(16)}
        for group, strings in groups.items():
            if not pieces:
                strings = [text for text in strings if all(unicodedata.category(c) != "Cn" for c in text)]
            theirs = [engine.tokenize(text) for text in strings]
            self.assert_same(strings, ids_of(path, strings), theirs, f"{name} in llama.cpp, {group}")
            if pieces:
                self.assert_same(theirs, decode_bytes(path, theirs), [engine.detokenize_bytes(ids) for ids in theirs], f"{name} in llama.cpp, {group}, decoded")
        if not pieces:
            return
        raw = [text for text in invalid_bytes(KIND_COUNT) if b"\0" not in text]
        self.assert_same(raw, encode_hex(path, raw), [engine.tokenize(text) for text in raw], f"{name} in llama.cpp, invalid bytes")

    def test_sentencepiece(self):
        """.model -> GGUF: llama.cpp and graft read it alike, and as the .model where that is the same by design."""
        for kind in ("bpe_llama", "bpe_gemma", "bpe_across_words", "bpe_chatglm", "unigram_t5", "unigram_ascii"):
            # (unigram_bytes: llama.cpp takes the first byte of a user-defined "日本" for all of it.)
            with self.subTest(kind), tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as out:
                directory = directory_of(folder, kind)
                path, differences = write_gguf(directory, out)
                self.compare_with_llama_cpp(path, kind)
                self.assertEqual(len(differences), 2 if kind == "bpe_chatglm" else 0, differences)  # its charsmap and its spaces
                for group, strings in kinds(KIND_COUNT).items() if kind.startswith("bpe") and not differences else ():  # llama.cpp adds in double
                    self.assert_same(strings, ids_of(path, strings), ids_of(directory, strings), f"{kind}, GGUF and .model, {group}")

    def test_tokenizer_json(self):
        # GGUF does not know added tokens of normalised text; words without merges are joined there.
        for kind, form, difference, but in (("bpe_llama", "prepend", "normalised text", ["学生"]), ("bpe_gemma", "gemma", "merges are missing", ["日本", "HTTP", "学生"])):
            with self.subTest(f"{kind} {form}"), tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as out:
                in_tokenizers(kind, form).save(folder + "/tokenizer.json")
                path, differences = write_gguf(folder, out)
                self.compare_with_llama_cpp(path, kind)
                self.assertTrue(any(difference in line for line in differences), differences)
                for group, strings in kinds(KIND_COUNT).items():
                    strings = [text for text in strings if not any(word in text for word in but)]
                    self.assert_same(strings, ids_of(path, strings), ids_of(folder, strings), f"{kind}, GGUF and tokenizer.json, {group}")

    def test_splits(self):
        """The names of byte-level splits that graft reads, each in llama.cpp."""
        shapes = reference_tokenizers.shapes()
        for name in ("kimi", "bloom", "gpt2", "qwen2", "qwen35", "llama3_ignore_merges", "gpt4o", "deepseek3", "smollm"):
            with self.subTest(name), tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as out:
                reference_tokenizers.make(folder, name, *shapes[name], Tiktoken.trained)
                if name == "llama3_ignore_merges":
                    (Path(folder) / name / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}))
                path, _ = write_gguf(Path(folder) / name, out)
                self.compare_with_llama_cpp(path, name, pieces=False)


if __name__ == "__main__":
    unittest.main()
